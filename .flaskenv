# Read by `flask run` and by no one else: the port is the one of the settings, unless --port says otherwise.
FLASK_RUN_PORT=${PORT:-8080}

"""How bytes reach the application: one gevent server for `flask run` and for gunicorn, so that a laptop and a cluster
behave alike. Imported before the application, so it imports nothing of it.
"""

"""The promises of the project, as sentences: the names of the tests are its specification."""

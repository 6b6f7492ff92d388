"""The tests. Their names are sentences, and the list of these sentences is the specification."""

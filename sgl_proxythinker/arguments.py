def check_arguments(given, defaults): pass

"""The last line of defence: an exception that one request causes ends that request."""

"""Requests that nobody should send, and laws that no request may break: `python -m benchmarks.fuzz`.

declared      SGLang's own classes of what may come in
values        values of a field, right and wrong
pictures      pictures in the forms of clients
bodies        bodies of every generating route
requests_of   requests: by the classes, by the server's OpenAPI description (schemathesis), and by neither
exchange      sending one, within a time
laws          what must hold of an answer, and of the server
campaign      many of them by one seed
"""

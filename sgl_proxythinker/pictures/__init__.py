"""Pictures of requests: from what a client sent to what the models see. docs/pictures.md says how."""

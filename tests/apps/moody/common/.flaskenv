# For developers; in production it must not have its way.
FLASK_DEBUG=1

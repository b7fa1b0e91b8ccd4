"""JSON, YAML and protobuf codecs."""

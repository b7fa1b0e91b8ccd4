"""Bytes on sockets: HTTP/1.1 server and client, WebSocket channels, SPDY framing, gRPC glue. Knows no Kubernetes."""

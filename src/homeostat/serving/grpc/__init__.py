"""The Open Inference Protocol V2 over gRPC: another encoding of what `serving.v2` speaks. Needs the extra `grpc`."""

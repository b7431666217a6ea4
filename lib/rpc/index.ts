/**
 * Rpc: gRPC between nodes, for the messages of proto/ without generated services.
 * method   a procedure as both ends know it: path, codecs, who may call
 * client   channels: one connection each, mutual TLS, short back-off       server   admits by certificate, then serves
 * direct-* the same streams on HTTP/2 itself, for those that managers keep open between each other (docs/adr/0017)
 * door     connections that come in a crowd wait in front of it
 * stream   one end of a stream, the same for both ends; pump               status   errors and gRPC statuses, both ways
 * Uses: lib/pki, lib/pure, @grpc/grpc-js.   Used by: every room that talks to another node.
 */
export { Channel, type ChannelOptions } from "./client.ts";
export { DirectChannel } from "./direct-client.ts";
export {
  ListenFailed,
  PeerNotAuthenticated,
  RemoteError,
  RpcDeadlineExceeded,
  RpcFailed,
  RpcInternal,
  RpcTooLarge,
  RpcUnavailable,
} from "./errors.ts";
export { rawCodec, type BidiMethod, type Caller, type Codec, type Method, type UnaryMethod } from "./method.ts";
export { RpcServer, type CallContext, type ServerOptions } from "./server.ts";
export { pump, type RpcStream, type StreamEvents } from "./stream.ts";

/**
 * The wire contracts and the objects of the cluster, with the checks that belong to the shapes.
 * Messages are generated into gen/ by `npm run proto`.   Used by: every room above lib.
 */
import "./flat-text.ts";
export { addressInRange, formatAddress, frameAddress, parseAddress, parseRange, type Address } from "./address.ts";
export {
  ConstraintInvalid,
  parseConstraint,
  sameArchitecture,
  requiredLabel,
  satisfies,
  traitsOf,
  valueOf,
  type Constraint,
  type NodeTraits,
} from "./constraint.ts";
export { controlMethods } from "./control-methods.ts";
export { decodeSharing, encodeSharing, sharedFrom, type SharedField } from "./decode-sharing.ts";
export { asksForNothing, needsEndpoint, networksOfService } from "./allocation.ts";
export { wrongClusterSpec } from "./cluster-spec.ts";
export { decodeStrictly, MessageUnreadable, type Decodable, type DecodeLimits } from "./decode.ts";
export { isNegative, isSet, nanos } from "./duration.ts";
export { logsMethod, sessionMethod } from "./dispatcher-methods.ts";
export { encodeBriefly, encodeInRow, encodeMessage, messageCodec, type Encodable } from "./encode.ts";
export { carriesEncrypted, frameAddressOf, isEncryptedNetwork } from "./network.ts";
export { certificateRole, nodeLifeOf, trustedRoots } from "./membership.ts";
export { replicasMax } from "./replicas.ts";
export { taskName, templateData, type TemplateNode } from "./task-template.ts";
export { skep } from "./gen/skep.js";

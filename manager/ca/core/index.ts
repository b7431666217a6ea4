/** What the authority decides, without waiting, writing or looking at a clock. */
export { reconcileRoles, type ManagerNode, type MemberFacts, type RoleFacts, type RoleStep } from "./roles.ts";
export {
  nextRound,
  whatBegins,
  type Beginning,
  type NodeProgress,
  type Round,
  type RotationFacts,
} from "./rotation.ts";
export { WrongTokens } from "./wrong-tokens.ts";

import { whySkipped } from "../containers/host.ts";
import { executorContract } from "./contract.ts";
import { RealWorld } from "./world.ts";

executorContract("containers", whySkipped(), () => RealWorld.open());

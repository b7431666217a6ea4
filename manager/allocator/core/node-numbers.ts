/**
 * The number of each node, from which its hardware address, its block of gateway addresses and its marks follow. One that
 * is given back is given out again as late as possible: tables of other nodes may name it for a while.
 */
import { isNodeNumber, nodeNumberMax } from "../../../lib/pure/node-number.ts";

export class NodeNumbers {
  readonly #owners = new Map<number, string>();
  readonly #numbers = new Map<string, number>();
  #next = 1;

  get used(): number {
    return this.#owners.size;
  }

  owner(number: number): string | undefined {
    return this.#owners.get(number);
  }

  /** As it stands in the store. @returns false if that is no number, or another node's */
  claim(number: number, nodeId: string): boolean {
    if (!isNodeNumber(number)) return false;
    const owner = this.#owners.get(number);
    if (owner !== undefined) return owner === nodeId;
    this.release(nodeId);
    this.#owners.set(number, nodeId);
    this.#numbers.set(nodeId, number);
    // What is claimed after a change of leaders was given out by the last one: go on behind it.
    if (number >= this.#next) this.#next = after(number);
    return true;
  }

  /** @returns the one that it has, a free one, or undefined if there is none */
  take(nodeId: string): number | undefined {
    const has = this.#numbers.get(nodeId);
    if (has !== undefined) return has;
    if (this.#owners.size >= nodeNumberMax) return undefined;
    let number = this.#next;
    while (this.#owners.has(number)) number = after(number);
    this.#owners.set(number, nodeId);
    this.#numbers.set(nodeId, number);
    this.#next = after(number);
    return number;
  }

  /** @returns whether it had one */
  release(nodeId: string): boolean {
    const number = this.#numbers.get(nodeId);
    if (number === undefined) return false;
    this.#numbers.delete(nodeId);
    this.#owners.delete(number);
    return true;
  }
}

const after = (number: number): number => (number === nodeNumberMax ? 1 : number + 1);

/**
 * An ordered map from text to values that can be frozen in O(1): a B+ tree whose nodes carry the token of the writer
 * that made them. Freezing hands out the root and takes a new token, so the next write copies the nodes on its path and
 * leaves the frozen tree as it is; writes between two freezes alter their own nodes in place.
 * Keys are ordered by UTF-16 code units, the same on every machine.
 */

/** Children of a branch, entries of a leaf. 32 keeps a path copy at three or four small arrays for 100,000 entries. */
const nodeMax = 32;

interface Writer {
  readonly writer: true;
}

interface Node<V> {
  owner: Writer;
  /** Of a leaf, its keys. Of a branch, keys[i] is at most every key below children[i + 1] and above those before. */
  readonly keys: string[];
  readonly values: V[];
  /** Undefined for a leaf. */
  readonly children: Node<V>[] | undefined;
}

const nobody: Writer = { writer: true };

const leaf = <V>(owner: Writer, keys: string[], values: V[]): Node<V> => ({ owner, keys, values, children: undefined });
const branch = <V>(owner: Writer, keys: string[], children: Node<V>[]): Node<V> => ({
  owner,
  keys,
  values: [],
  children,
});

/** The first place in `keys` whose key is not below `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Which child of a branch holds `key`. */
function childAt(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Reads; what `freeze` hands out stays as it is for ever. */
export class FrozenMap<V> {
  protected root: Node<V>;
  protected count: number;

  protected constructor(root: Node<V>, count: number) {
    this.root = root;
    this.count = count;
  }

  static of<V>(root: Node<V>, count: number): FrozenMap<V> {
    return new FrozenMap(root, count);
  }

  get size(): number {
    return this.count;
  }

  get(key: string): V | undefined {
    let node = this.root;
    while (node.children !== undefined) node = node.children[childAt(node.keys, key)] as Node<V>;
    const at = lowerBound(node.keys, key);
    return node.keys[at] === key ? node.values[at] : undefined;
  }

  /** The key as the map holds it: the same text object for all who ask, which saves memory. */
  keyOf(key: string): string | undefined {
    let node = this.root;
    while (node.children !== undefined) node = node.children[childAt(node.keys, key)] as Node<V>;
    const at = lowerBound(node.keys, key);
    return node.keys[at] === key ? node.keys[at] : undefined;
  }

  /** A place before the first key that is not below `from`; ends before `to`. Not for a map that changes meanwhile. */
  cursor(from?: string, to?: string): Cursor<V> {
    return new Cursor(this.root, from, to);
  }

  *entries(from?: string, to?: string): IterableIterator<[string, V]> {
    const cursor = this.cursor(from, to);
    while (cursor.next()) yield [cursor.key, cursor.value];
  }

  *keys(from?: string, to?: string): IterableIterator<string> {
    const cursor = this.cursor(from, to);
    while (cursor.next()) yield cursor.key;
  }

  *values(from?: string, to?: string): IterableIterator<V> {
    const cursor = this.cursor(from, to);
    while (cursor.next()) yield cursor.value;
  }
}

/** Walks upwards. After `next()` said true, `key` and `value` are those of the entry passed. */
export class Cursor<V> {
  key = "";
  #value: V | undefined;
  readonly #nodes: Node<V>[] = [];
  /** Of the branches, the child in use; of the leaf, the next entry. */
  readonly #places: number[] = [];

  readonly #to: string | undefined;

  constructor(root: Node<V>, from: string | undefined, to: string | undefined) {
    this.#to = to;
    let node = root;
    while (node.children !== undefined) {
      const at = from === undefined ? 0 : childAt(node.keys, from);
      this.#nodes.push(node);
      this.#places.push(at);
      node = node.children[at] as Node<V>;
    }
    this.#nodes.push(node);
    this.#places.push(from === undefined ? 0 : lowerBound(node.keys, from));
  }

  get value(): V {
    return this.#value as V;
  }

  next(): boolean {
    let depth = this.#nodes.length - 1;
    let node = this.#nodes[depth] as Node<V>;
    let at = this.#places[depth] as number;
    while (at >= node.keys.length) {
      // This leaf is done: up to the first branch that has another child, and down its left edge.
      do {
        depth--;
        if (depth < 0) return false;
        node = this.#nodes[depth] as Node<V>;
        at = (this.#places[depth] as number) + 1;
      } while (at > node.keys.length);
      this.#places[depth] = at;
      node = node.children?.[at] as Node<V>;
      while (node.children !== undefined) {
        depth++;
        this.#nodes[depth] = node;
        this.#places[depth] = 0;
        node = node.children[0] as Node<V>;
      }
      depth++;
      this.#nodes[depth] = node;
      at = 0;
    }
    this.key = node.keys[at] as string;
    this.#value = node.values[at];
    this.#places[depth] = at + 1;
    return this.#to === undefined || this.key < this.#to;
  }
}

/** The one that is written. */
export class SortedMap<V> extends FrozenMap<V> {
  #writer: Writer = { writer: true };

  constructor() {
    super(leaf(nobody, [], []), 0);
  }

  /** The entries of now, for ever. O(1). */
  freeze(): FrozenMap<V> {
    this.#writer = { writer: true };
    return FrozenMap.of(this.root, this.count);
  }

  /** A map of its own that starts with these entries; this one must not be written any more. O(1). */
  fork(): SortedMap<V> {
    const fork = new SortedMap<V>();
    fork.root = this.root;
    fork.count = this.count;
    return fork;
  }

  /** @returns the value that was there before */
  set(key: string, value: V): V | undefined {
    const sizeBefore = this.count;
    this.root = this.#own(this.root);
    const before = this.#insert(this.root, key, value);
    if (this.root.keys.length >= nodeMax && this.count > sizeBefore) {
      const right = this.#split(this.root, true);
      if (right !== undefined) this.root = branch(this.#writer, [right.key], [this.root, right.node]);
    }
    return before;
  }

  /** @returns the value that was there */
  delete(key: string): V | undefined {
    // Looked up first, so that deleting nothing copies nothing.
    if (this.keyOf(key) === undefined) return undefined;
    this.root = this.#own(this.root);
    const before = this.#remove(this.root, key);
    this.count--;
    while (this.root.children !== undefined && this.root.keys.length === 0)
      this.root = this.root.children[0] as Node<V>;
    return before;
  }

  #own(node: Node<V>): Node<V> {
    if (node.owner === this.#writer) return node;
    return node.children === undefined
      ? leaf(this.#writer, node.keys.slice(), node.values.slice())
      : branch(this.#writer, node.keys.slice(), node.children.slice());
  }

  #insert(node: Node<V>, key: string, value: V): V | undefined {
    if (node.children === undefined) {
      const at = lowerBound(node.keys, key);
      if (node.keys[at] === key) {
        const before = node.values[at];
        node.values[at] = value;
        return before;
      }
      node.keys.splice(at, 0, key);
      node.values.splice(at, 0, value);
      this.count++;
      return undefined;
    }
    const at = childAt(node.keys, key);
    const child = this.#own(node.children[at] as Node<V>);
    node.children[at] = child;
    const before = this.#insert(child, key, value);
    if (child.keys.length >= nodeMax) {
      const right = this.#split(child, at === node.children.length - 1);
      if (right !== undefined) {
        node.keys.splice(at, 0, right.key);
        node.children.splice(at + 1, 0, right.node);
      }
    }
    return before;
  }

  /**
   * Cuts a full node in two; at the right edge nearly all stays left, so that keys arriving in order (a snapshot being
   * restored) leave full nodes behind.
   */
  #split(node: Node<V>, atRightEdge: boolean): { key: string; node: Node<V> } | undefined {
    if (node.keys.length < nodeMax) return undefined;
    const middle = atRightEdge ? nodeMax - 2 : nodeMax >>> 1;
    if (node.children === undefined) {
      const keys = node.keys.splice(middle);
      return { key: keys[0] as string, node: leaf(this.#writer, keys, node.values.splice(middle)) };
    }
    const keys = node.keys.splice(middle + 1);
    const key = node.keys.pop() as string;
    return { key, node: branch(this.#writer, keys, node.children.splice(middle + 1)) };
  }

  #remove(node: Node<V>, key: string): V | undefined {
    if (node.children === undefined) {
      const at = lowerBound(node.keys, key);
      node.keys.splice(at, 1);
      return node.values.splice(at, 1)[0];
    }
    const at = childAt(node.keys, key);
    const child = this.#own(node.children[at] as Node<V>);
    node.children[at] = child;
    const before = this.#remove(child, key);
    if (child.keys.length < nodeMax >>> 2) this.#merge(node, at);
    return before;
  }

  /** Joins a thin child with a neighbour when both fit in one node. Two neighbours together are never thin for long. */
  #merge(parent: Node<V>, at: number): void {
    const children = parent.children as Node<V>[];
    for (const left of [at - 1, at]) {
      const first = children[left];
      const second = children[left + 1];
      if (first === undefined || second === undefined) continue;
      if (first.keys.length + second.keys.length + 1 >= nodeMax - 1) continue;
      const joined = this.#own(first);
      if (joined.children === undefined) {
        joined.keys.push(...second.keys);
        joined.values.push(...second.values);
      } else {
        joined.keys.push(parent.keys[left] as string, ...second.keys);
        joined.children.push(...(second.children as Node<V>[]));
      }
      children[left] = joined;
      children.splice(left + 1, 1);
      parent.keys.splice(left, 1);
      return;
    }
  }
}

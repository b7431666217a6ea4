/** Virtual time: one priority queue of events in microseconds; equal times run in the order in which they were planned. */

export interface SimEvent {
  readonly atUs: number;
  readonly order: number;
  readonly run: () => void;
}

/** A binary heap. Nothing is ever removed but the head: an event that became stale checks an epoch of its own. */
export class EventQueue {
  readonly #heap: SimEvent[] = [];
  #order = 0;

  get size(): number {
    return this.#heap.length;
  }

  get nextUs(): number {
    return this.#heap[0]?.atUs ?? Number.POSITIVE_INFINITY;
  }

  push(atUs: number, run: () => void): void {
    const event: SimEvent = { atUs, order: this.#order++, run };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as SimEvent;
      if (!before(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  pop(): SimEvent | undefined {
    const heap = this.#heap;
    const head = heap[0];
    const last = heap.pop();
    if (head === undefined || last === undefined || heap.length === 0) return head;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && before(heap[right] as SimEvent, heap[child] as SimEvent)) child = right;
      const below = heap[child] as SimEvent;
      if (!before(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
    return head;
  }
}

function before(a: SimEvent, b: SimEvent): boolean {
  return a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);
}

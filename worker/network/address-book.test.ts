import assert from "node:assert/strict";
import { test } from "node:test";

import { AddressBook } from "./address-book.ts";

const range = { first: 0x0a000000, last: 0x0a0000ff };

test("an address that was let go is given again last, and of ranges of long ago nothing is remembered", () => {
  const book = new AddressBook();
  const give = (name: string): string | undefined => {
    const address = book.choose("c", name, range, []);
    book.release("c", address ?? "");
    return address;
  };
  assert.deepEqual([give("first"), give("first"), give("kept")], ["10.0.0.0", "10.0.0.1", "10.0.0.0"]);
  for (let number = 0; number < 2000; number++) {
    give(`network ${number}`);
    if (number % 1000 === 0) give("kept");
  }
  assert.deepEqual([give("first"), give("kept")], ["10.0.0.0", "10.0.0.3"]);
});

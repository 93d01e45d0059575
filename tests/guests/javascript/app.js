// The scenario of `tests/guest/test_toolchains.py` in JavaScript.
import { Counter, mode, note, swap } from "test:toy/api";
import { poll } from "wasi:io/poll@0.2.0";

export const run = {
  run() {
    const counter = new Counter(40);
    const slow = counter.after(200);
    const fast = counter.after(100);
    const ready = poll([slow, fast, fast]);
    slow.block();
    const swapped = swap({ firstPart: counter.add(2), second: "words" });
    try {
      swap({ firstPart: 0, second: "" });
    } catch (error) {
      note(`refused: ${error.payload}`);
    }
    note(`${[...ready]} ${swapped.firstPart} ${swapped.second}`);
    console.log("to the client");
    if (mode() === "error") throw "a wanted error";
    if (mode() === "exception") throw new Error("an unwanted one");
  },
};

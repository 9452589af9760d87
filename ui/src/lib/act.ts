/* Doing something for a person: what went wrong is shown to them, with the program's own sentence. */
import { toast } from "svelte-sonner";
import { told } from "./api/client";

/** Run `work`; whether it succeeded. `done` is said if it did. */
export async function act(work: () => Promise<unknown>, done = ""): Promise<boolean> {
  try {
    await work();
    if (done) toast.success(done);
    return true;
  } catch (error) {
    toast.error(told(error), { duration: 10_000 });
    return false;
  }
}

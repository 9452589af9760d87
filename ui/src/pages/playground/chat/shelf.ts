/* Where chats are kept: IndexedDB, which takes pictures. Heads stand apart, so that the list is there without them.
 * Without it (a private window, a full disk) the page works, and chats last as long as it is open. */
import type { Chat } from "./turns";
import type { Head } from "./history";

const NAME = "bioproxy.chats";

let opened: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      request.result.createObjectStore("chats", { keyPath: "id" });
    };
    request.onsuccess = () => {
      request.result.onclose = () => (opened = undefined); // the browser did it: its data was cleared, or a disk fault
      resolve(request.result);
    };
    request.onerror = () => reject(request.error ?? new Error("the browser keeps no chats"));
    request.onblocked = () => reject(new Error("another tab keeps the chats closed"));
  });
  opened.catch(() => (opened = undefined)); // it is tried again
  return opened;
}

async function within<T>(mode: IDBTransactionMode, work: (stores: IDBTransaction) => IDBRequest<T>): Promise<T> {
  const transaction = (await database()).transaction(["heads", "chats"], mode);
  const request = work(transaction);
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not keep the chat"));
  });
}

export const shelf = {
  heads: () => within<Head[]>("readonly", (stores) => stores.objectStore("heads").getAll()),
  head: (id: string) => within<Head | undefined>("readonly", (stores) => stores.objectStore("heads").get(id)),
  chat: (id: string) => within<Chat | undefined>("readonly", (stores) => stores.objectStore("chats").get(id)),
  chats: () => within<Chat[]>("readonly", (stores) => stores.objectStore("chats").getAll()),
  keep: (chat: Chat, head: Head) =>
    within("readwrite", (stores) => {
      stores.objectStore("chats").put(chat);
      const request = stores.objectStore("heads").put(head);
      stores.commit(); // not only once the page has heard of both: it may be closed before
      return request;
    }),
  remove: (id: string) =>
    within("readwrite", (stores) => {
      stores.objectStore("chats").delete(id);
      return stores.objectStore("heads").delete(id);
    }),
};

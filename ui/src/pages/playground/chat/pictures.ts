/* Pictures that go with a message. */
import { bytes } from "../../../lib/format";
import type { Picture } from "./turns";

export const MOST_PICTURES = 5;
export const LARGEST = 20_000_000; // bytes of one
export const KINDS: readonly string[] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/** Which files may be added to `already` pictures, and a sentence for each that may not. */
export function judged(files: readonly File[], already: number): { good: File[]; refused: string[] } {
  const good: File[] = [];
  const refused: string[] = [];
  for (const file of files) {
    if (!KINDS.includes(file.type)) refused.push(`${file.name || "This"} is not a PNG, JPEG, GIF or WebP.`);
    else if (file.size > LARGEST) refused.push(`${file.name} has ${bytes(file.size)}; at most ${bytes(LARGEST)} fit.`);
    else if (already + good.length >= MOST_PICTURES) refused.push(`A message takes ${MOST_PICTURES} images at most.`);
    else good.push(file);
  }
  return { good, refused: [...new Set(refused)] };
}

/** The file as a picture; an Error says that it is none, whatever it is called. */
export async function read(file: File): Promise<Picture> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is no image, or a broken one.`);
  });
  bitmap.close();
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name, type: file.type, url: String(reader.result) });
    reader.onerror = () => reject(reader.error ?? new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

/** The files among what was pasted or dropped. */
export function filesOf(data: DataTransfer | null): File[] {
  return [...(data?.files ?? [])];
}

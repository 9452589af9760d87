import { beforeEach, describe, expect, it, vi } from "vitest";
import { Blocks } from "./blocks";
import { rendered } from "./render";

const PATIENCE = { timeout: 30_000 }; // a part is loaded first, which a busy machine may take long for

function drawn(text: string): HTMLElement {
  const place = document.createElement("div");
  for (const block of new Blocks().of(text)) place.append(rendered(block, true));
  document.body.replaceChildren(place);
  return place;
}

const HARMFUL: Record<string, string> = {
  script: "<script>window.harmed = 1</script>",
  "a script in SVG": '<svg onload="window.harmed=1"><script>window.harmed=1</script></svg>',
  onerror: '<img src="x" onerror="window.harmed=1">',
  "onerror in Markdown": '![x](x" onerror="window.harmed=1)',
  "onmouseover in a link": "[x](https://a.example 'x\" onmouseover=\"window.harmed=1')",
  style: "<style>body { display: none }</style><p style='position:fixed;inset:0'>over all</p>",
  form: '<form action="/api/models/unload"><input name="a"><button>Continue</button></form>',
  "meta refresh": '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
  base: '<base href="https://evil.example/">',
  iframe: '<iframe srcdoc="<script>parent.harmed=1</script>"></iframe>',
  "object and embed": '<object data="x"></object><embed src="x">',
  "an anchor's ping": '<a href="https://a.example" ping="https://evil.example">x</a>',
  "mutation XSS":
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.harmed=1&gt;'>",
  "mutation by noscript": '<noscript><p title="</noscript><img src=x onerror=window.harmed=1>">',
  "names that hide ours": '<input id="location" name="body"><p id="app">x</p>',
  "a class of ours": '<p class="dialog dialog-shade">x</p>',
  template: "<template><img src=x onerror=window.harmed=1></template>",
};

describe("rendered", () => {
  beforeEach(() => document.body.replaceChildren());

  it.each(Object.entries(HARMFUL))("leaves nothing harmful of %s", (_name, text) => {
    const place = drawn(text);
    expect("harmed" in window).toBe(false);
    expect(
      place.querySelector("script,style,svg,form,meta,base,iframe,object,embed,template,noscript,link,math,[src]"),
    ).toBeNull();
    for (const element of place.querySelectorAll("*")) {
      for (const { name } of element.attributes) {
        expect(name).not.toMatch(/^on|^style$|^id$|^name$|^ping$|^srcset$|^formaction$/);
      }
    }
    expect(place.querySelector(".dialog")).toBeNull();
  });

  it("shows HTML as it was written, but for plain tags, which lose what could do something", () => {
    const place = drawn('<div onclick="x()">\na < b</div>\n\n<p align="center" style="color: red">H<sub>2</sub>O</p>');
    expect(place.querySelector("pre")?.textContent).toBe('<div onclick="x()">\na < b</div>\n');
    expect(place.querySelector("p[align=center]:not([style]) sub")).not.toBeNull();
    expect(drawn("so <think>yes</think>").textContent).toBe("so <think>yes</think>\n");
  });

  it.each([
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "&#106;avascript:alert(1)",
    "data:text/html,<script>1</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "/unload",
    "//evil.example/x",
    "#/settings",
    "?a",
    `${location.origin}/unload`,
  ])("makes no link of %s", (address) => {
    expect(drawn(`<a href="${address}">x</a>`).querySelector("a[href]")).toBeNull();
    expect(drawn(`[x](<${address}>)`).querySelector("a[href]")).toBeNull();
  });

  it("opens links elsewhere, and tells nobody where one came from", () => {
    const link = drawn("See <https://example.org/a>.").querySelector("a");
    expect([link?.href, link?.rel, link?.target]).toEqual(["https://example.org/a", "noreferrer noopener", "_blank"]);
  });

  it("loads no picture, and says where it would come from", () => {
    const opened = vi.spyOn(window, "open").mockReturnValue(null);
    const place = drawn("![a cat](https://pictures.example/cat.png)");
    expect(place.textContent?.trim()).toBe("Image “a cat” Open from pictures.example");
    place.querySelector("button")?.click();
    expect(opened).toHaveBeenCalledWith(new URL("https://pictures.example/cat.png"), "_blank", "noopener,noreferrer");
  });

  it("does not even offer a picture that is an address of ours", () => {
    expect(drawn("![x](/unload)").querySelector("img,button")).toBeNull();
  });

  it("shows a picture that stands in the text itself", () => {
    expect(drawn("![x](data:image/png;base64,AAAA)").querySelector("img")?.src).toBe("data:image/png;base64,AAAA");
  });

  it("gives code a head with its language and a button, and its colours", async () => {
    const place = drawn("```py\nx = 'a <b>'  # why\n```");
    expect(place.querySelector("figcaption")?.textContent).toBe("pyCopy");
    expect(place.querySelector("code")?.textContent).toBe("x = 'a <b>'  # why\n");
    await vi.waitFor(() => expect(place.querySelector(".hljs-comment")?.textContent).toBe("# why"), PATIENCE);
    expect(place.querySelector("code")?.textContent).toBe("x = 'a <b>'  # why\n");
  });

  it.each([
    ["$x^2$", "msup"],
    ["so \\(x^2\\) is", "msup"],
    ["$$\n\\frac{1}{2}\n$$", "mfrac"],
    ["\\[ \\frac{1}{2} \\]", "mfrac"],
    ["in a line $$\\frac{1}{2}$$ too", "mfrac"],
  ])("makes a formula of %s", async (text, element) => {
    const place = drawn(text);
    await vi.waitFor(() => expect(place.querySelector(`.formula math ${element}`)).not.toBeNull(), PATIENCE);
    expect(place.querySelector("[style]")).toBeNull();
  });

  it.each(["It costs $5 and $6.", "a $ b $ c", "`$x$`", "\\$x$"])("sees no formula in %s", (text) =>
    expect(drawn(text).querySelector("[data-math]")).toBeNull(),
  );

  it("lets a formula do nothing", async () => {
    const place = drawn("$\\href{javascript:alert(1)}{x}$ $\\htmlStyle{color:red}{y}$ $\\frac{1$");
    await vi.waitFor(() => expect(place.querySelector("code[title]")).not.toBeNull(), PATIENCE);
    expect(place.querySelector("[href],[style]")).toBeNull();
  });

  it("shows a megabyte in one line as it came", () => {
    const line = "<b>*x*</b>".repeat(100_000);
    expect(drawn(line).querySelector(".unparsed")?.textContent).toBe(line);
  });

  it.each(["[", "*a ", "`", "$", "$a", "![](", "<a ", "a_b", "> ", "- ", "\\(", "~~", "**a*", "&", "](", "[^", "<b>"])(
    "comes to an end with 20,000 characters of %s, in one line and in many",
    (piece) => {
      const line = piece.repeat(Math.floor(500 / piece.length));
      expect(drawn(line.repeat(38)).textContent).not.toBe("");
      expect(drawn(`${line}\n`.repeat(38)).textContent).not.toBe("");
    },
  );

  it("keeps what Markdown is made of", () => {
    const place = drawn("- [x] done\n- [ ] not\n\n| a |\n|---|\n| 1 |\n\n~~old~~ H<sub>2</sub>O<br>\nx");
    expect(place.querySelectorAll("input[type=checkbox][disabled]").length).toBe(2);
    expect(place.querySelector(".wide table td")?.textContent).toBe("1");
    expect(place.querySelector("del")?.textContent).toBe("old");
    expect(place.querySelector("sub")?.textContent).toBe("2");
  });
});

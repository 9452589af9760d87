import "./lib/design/base.css";
import "./lib/design/table.css";
import "./lib/ui/field.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { loadAnew } from "./frame/anew";

addEventListener("vite:preloadError", (event) => loadAnew(event));
const target = document.getElementById("app");
if (target) mount(App, { target });

// The lab page.
import { render } from "preact";
import { useState } from "preact/hooks";
import type { LabBoot } from "./gen/view.ts";
import { TopologyMap } from "./map/map.tsx";
import { Store } from "./model/store.ts";
import { useModel } from "./ui.tsx";

const boot = JSON.parse(document.getElementById("boot")!.textContent!) as LabBoot;
const store = new Store(boot);

function App() {
  const model = useModel(store);
  const [selected, setSelected] = useState("");
  return <TopologyMap model={model} workerURL={boot.assets!["layout-worker.js"]!} selected={selected} onSelect={setSelected} />;
}

render(<App />, document.getElementById("lab")!);
store.start();

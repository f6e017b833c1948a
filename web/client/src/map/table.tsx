// The map's twin for those who cannot or do not want to look at it: every
// interface of the lab in one table.
import { useLang } from "../ui.tsx";
import { t } from "../i18n.ts";
import { podKey, type Model } from "../model/state.ts";
import { linkId, nsBoxId, podId, podState } from "./graph.ts";

export function MapTable({ model, selected, onSelect }: { model: Model; selected: string; onSelect: (id: string) => void }) {
  useLang();
  const podOf = new Map([...model.pods.values()].map((p) => [p.netns, p]));
  const spaces = [...model.namespaces.values()];
  const name = (ref: { namespace: string; index: number } | undefined | null) => {
    const ns = ref && model.namespaces.get(ref.namespace);
    const l = ns?.links?.find((x) => x.index === ref?.index);
    return ns && l ? `${ns.name} ${l.name}` : "";
  };
  return (
    <div class="map-table" tabIndex={0} role="region" aria-label={t("map.label")}>
      <table class="table">
        <thead>
          <tr>
            <th scope="col">{t("table.place")}</th>
            <th scope="col">{t("table.state")}</th>
            <th scope="col">{t("table.interface")}</th>
            <th scope="col">{t("table.addresses")}</th>
            <th scope="col">{t("table.joined")}</th>
          </tr>
        </thead>
        {spaces.map((ns) => {
          const pod = podOf.get(ns.id);
          const id = pod ? podId(podKey(pod)) : nsBoxId(ns.id);
          const links = (ns.links ?? []).filter((l) => l.kind !== "loopback");
          return (
            <tbody key={ns.id} class={selected === id ? "selected" : ""}>
              {(links.length > 0 ? links : [null]).map((l, i) => (
                <tr key={l?.index ?? 0} class={l && selected === linkId(ns.id, l.index) ? "selected" : ""}>
                  {i === 0 && (
                    <th scope="rowgroup" rowSpan={Math.max(links.length, 1)}>
                      <button type="button" class="link-button" onClick={() => onSelect(id)}>
                        {ns.kind === "underlay" ? t("map.underlay") : ns.name}
                      </button>
                      <span class="dim"> {t(`kind.${ns.kind}`)}{ns.kind !== "node" && ns.node ? ` · ${ns.node}` : ""}</span>
                      {pod && <span class={`pod-status state-${podState(pod).state}`}> {pod.status}</span>}
                    </th>
                  )}
                  <td>{l && <span class={`port-word ${l.up ? (l.running ? "up" : "nocarrier") : "down"}`}>{t(`port.${l.up ? (l.running ? "up" : "nocarrier") : "down"}`)}</span>}</td>
                  <td>
                    {l && (
                      <button type="button" class="link-button mono" onClick={() => onSelect(linkId(ns.id, l.index))}>
                        {l.name}
                      </button>
                    )}
                    {l && <span class="dim"> {l.kind}</span>}
                  </td>
                  <td class="mono">{(l?.addrs ?? []).filter((a) => a.scope === "global").map((a) => <div key={a.prefix}>{a.prefix}</div>)}</td>
                  <td class="mono">{l && (name(l.peer) || (l.master ? (ns.links?.find((x) => x.index === l.master)?.name ?? "") : ""))}</td>
                </tr>
              ))}
            </tbody>
          );
        })}
      </table>
    </div>
  );
}

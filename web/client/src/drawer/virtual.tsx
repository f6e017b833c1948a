// A list of equal rows of which only those in sight are in the page.
import { type ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n.ts";
import { Icon } from "../ui.tsx";

const ABOVE = 8; // rows kept beyond the edges

/** VirtualList follows its end until the reader scrolls up. */
export function VirtualList<T>(props: { items: readonly T[]; rowHeight: number; label: string; row: (item: T, index: number) => ComponentChildren; keyOf: (item: T) => string | number }) {
  const ref = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 300 });
  const follow = useRef(true);
  const [following, setFollowing] = useState(true);
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const h = props.rowHeight * rem;

  useLayoutEffect(() => {
    const e = ref.current!;
    if (follow.current) e.scrollTop = e.scrollHeight;
    setView({ top: e.scrollTop, height: e.clientHeight });
  }, [props.items.length, props.items[props.items.length - 1]]);
  useLayoutEffect(() => {
    const e = ref.current!;
    const observer = new ResizeObserver(() => {
      if (follow.current) e.scrollTop = e.scrollHeight;
      setView({ top: e.scrollTop, height: e.clientHeight });
    });
    observer.observe(e);
    return () => observer.disconnect();
  }, []);

  const onScroll = () => {
    const e = ref.current!;
    follow.current = e.scrollTop + e.clientHeight >= e.scrollHeight - h;
    setFollowing(follow.current);
    setView({ top: e.scrollTop, height: e.clientHeight });
  };
  const first = Math.max(0, Math.floor(view.top / h) - ABOVE);
  const last = Math.min(props.items.length, Math.ceil((view.top + view.height) / h) + ABOVE);
  const end = () => {
    follow.current = true;
    setFollowing(true);
    ref.current!.scrollTop = ref.current!.scrollHeight;
  };
  return (
    <div class="virtual-wrap">
      <div class="virtual" ref={ref} onScroll={onScroll} tabIndex={0} role="log" aria-label={props.label} aria-live="off">
        <div class="virtual-space" style={{ height: `${props.items.length * h}px` }}>
          {props.items.slice(first, last).map((item, i) => (
            <div key={props.keyOf(item)} class="virtual-row" style={{ transform: `translateY(${(first + i) * h}px)`, height: `${h}px` }}>
              {props.row(item, first + i)}
            </div>
          ))}
        </div>
      </div>
      {!following && (
        <button type="button" class="button small to-end" onClick={end}>
          <Icon name="down" />
          {t("events.follow")}
        </button>
      )}
    </div>
  );
}

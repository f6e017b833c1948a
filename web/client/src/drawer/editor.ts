// CodeMirror with YAML, loaded when the editor is first opened.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { bracketMatching, defaultHighlightStyle, foldGutter, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import type { Error as LabError } from "../gen/lab.ts";

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent-text)" },
  { tag: [tags.string, tags.content], color: "var(--text)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--tunnel)" },
  { tag: tags.comment, color: "var(--dim)", fontStyle: "italic" },
  { tag: [tags.separator, tags.punctuation, tags.squareBracket, tags.brace], color: "var(--dim)" },
  { tag: [tags.keyword, tags.typeName, tags.labelName], color: "var(--ok)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

const look = EditorView.theme({
  "&": { height: "100%", fontSize: ".78125rem", backgroundColor: "var(--term-bg)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--cells)", lineHeight: "1.55" },
  ".cm-content": { caretColor: "var(--accent)", padding: ".5rem 0" },
  ".cm-cursor": { borderLeftColor: "var(--accent)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--term-bg)", color: "var(--dim)", border: "none", paddingLeft: ".25rem" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--sel)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--sel-strong)" },
  ".cm-tooltip": { backgroundColor: "var(--panel)", border: "1px solid var(--line-strong)", borderRadius: "6px", color: "var(--text)" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--bad-fill)" },
  ".cm-panels": { backgroundColor: "var(--raise)", color: "var(--text)", borderColor: "var(--line)" },
});

export interface Editor {
  text(): string;
  /** replace puts another text in, as one step that can be undone. */
  replace(text: string): void;
  /** show marks errors at their lines and moves to the first. */
  show(errors: readonly LabError[]): void;
  focus(): void;
  destroy(): void;
}

export function createEditor(parent: HTMLElement, options: { text: string; label: string; readOnly: boolean; onApply: () => void; onChange: (text: string) => void }): Editor {
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: options.text,
      extensions: [
        lineNumbers(),
        foldGutter(),
        lintGutter(),
        history(),
        drawSelection(),
        indentOnInput(),
        indentUnit.of("  "),
        bracketMatching(),
        closeBrackets(),
        autocompletion(),
        highlightActiveLine(),
        highlightActiveLineGutter(),
        highlightSelectionMatches(),
        search({ top: true }),
        yaml(),
        syntaxHighlighting(colours),
        syntaxHighlighting(defaultHighlightStyle, { fallback: true }),
        look,
        EditorState.readOnly.of(options.readOnly),
        EditorView.contentAttributes.of({ "aria-label": options.label, tabindex: "0" }),
        EditorView.updateListener.of((u) => u.docChanged && options.onChange(u.state.doc.toString())),
        keymap.of([
          {
            key: "Mod-Enter",
            run: () => {
              options.onApply();
              return true;
            },
          },
          ...closeBracketsKeymap,
          ...defaultKeymap,
          ...searchKeymap,
          ...historyKeymap,
          ...completionKeymap,
          ...lintKeymap,
          indentWithTab, // Escape then Tab leaves the editor
        ]),
      ],
    }),
  });
  return {
    text: () => view.state.doc.toString(),
    replace: (text) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, selection: { anchor: 0 }, scrollIntoView: true }),
    show: (errors) => {
      const doc = view.state.doc;
      const diagnostics: Diagnostic[] = errors.filter((e) => e.line).map((e) => {
        const line = doc.line(Math.min(Math.max(e.line!, 1), doc.lines));
        const indent = line.text.length - line.text.trimStart().length;
        const from = Math.min(line.from + (e.column ? e.column - 1 : indent), line.to);
        return { from, to: line.to, severity: "error", message: e.field ? `${e.field}: ${e.message}` : e.message };
      });
      view.dispatch(setDiagnostics(view.state, diagnostics));
      const first = diagnostics[0];
      if (first) view.dispatch({ selection: { anchor: first.from }, effects: EditorView.scrollIntoView(first.from, { y: "center" }) });
    },
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}

package author

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"podlab/exercises"
)

// New makes the folder of a new exercise in dir, with one task whose check is
// right but says nothing yet, and returns the folder. It overwrites nothing.
func New(dir, id string) (string, error) {
	folder := filepath.Join(dir, id)
	files := template()
	// Loaded from memory first, so that a wrong id leaves nothing behind.
	course, err := exercises.Load(memory(id, files))
	if err != nil {
		return "", err
	}
	if course.Get(id) == nil {
		return "", fmt.Errorf("%q is not a name of an exercise; NN-name in small letters, digits and - is wanted", id)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the exercise: %w", err)
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), mode); err != nil {
			return "", fmt.Errorf("cannot make the exercise: %w", err)
		}
	}
	return folder, nil
}

// memory is the folder as a file system.
func memory(id string, files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[id+"/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func template() map[string]string {
	return map[string]string{
		"exercise.yaml": `title:
  ko: 새 연습
  en: A new exercise
summary:
  ko: 한 문장으로 무엇을 하게 되는지.
  en: One sentence on what the learner will do.
covers: [P6]
minutes: 10
manifests: []
tasks:
  - id: first
    title:
      ko: 첫 과제
      en: The first task
    hints:
      - ko: 도움말.
        en: A hint.
    checks:
      - id: listens
        title:
          ko: pod-a가 8080을 듣는다
          en: pod-a listens on 8080
        expr: listening(pod("pod-a"), 8080)
        want:
          ko: 8080을 듣는 TCP 소켓
          en: a TCP socket that listens on 8080
        saw:
          ko: "소켓 ${size(pod('pod-a').sockets)}개"
          en: "${size(pod('pod-a').sockets)} sockets"
        on: [pod.set, terminal]
`,
		"lesson.ko.md":  "이야기로 시작합니다.\n\n:::predict 해 보기 전에: 무슨 일이 일어날까요?\n답.\n:::\n\n```sh {target=pod-a}\nss -lnt\n```\n\n{{task \"first\"}}\n",
		"lesson.en.md":  "Begin with a story.\n\n:::predict Before you try: what will happen?\nThe answer.\n:::\n\n```sh {target=pod-a}\nss -lnt\n```\n\n{{task \"first\"}}\n",
		"solution.sh":   "#!/usr/bin/env bash\n#@ on pod-a\nbackground nc -lk 0.0.0.0 8080\n",
		"undo.sh":       "#!/usr/bin/env bash\n#@ on pod-a\npkill -x nc\n",
		"wrong-port.sh": "#!/usr/bin/env bash\n#@ red listens\n#@ on pod-a\nbackground nc -lk 0.0.0.0 8081\n",
	}
}

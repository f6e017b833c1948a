package launch

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestCgroupMounts(t *testing.T) {
	tests := []struct {
		name, mountinfo, cgroup string
		// want maps controllers ("" is v2) to where a server's groups would be.
		want map[string]string
	}{
		{
			"unified, in a session",
			"35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/user-0.slice/session-3.scope\n",
			map[string]string{"": "/sys/fs/cgroup/user.slice/user-0.slice/session-3.scope"},
		},
		{
			"container with a cgroup namespace",
			"1 2 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n",
			"0::/\n",
			map[string]string{"": "/sys/fs/cgroup"},
		},
		{
			"v1 in a container without a cgroup namespace",
			"1 2 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpuacct,cpu\n" +
				"3 2 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc/own\n",
			map[string]string{"cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory/own"},
		},
		{
			"hybrid, with a named hierarchy",
			"1 2 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n" +
				"2 2 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
				"3 2 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"9:name=systemd:/\n8:pids:/a\n0::/\n",
			map[string]string{"name=systemd": "/sys/fs/cgroup/systemd", "pids": "/sys/fs/cgroup/pids/a", "": "/sys/fs/cgroup/unified"},
		},
		{
			"group outside of what is mounted",
			"1 2 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			"0::/../elsewhere\n",
			map[string]string{"": "/sys/fs/cgroup"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			own := ownCgroups(test.cgroup)
			got := map[string]string{}
			for _, m := range cgroupMounts(test.mountinfo) {
				key := strings.Join(m.controllers, ",")
				group, ok := own[key]
				if !ok {
					t.Errorf("no group of ours in the hierarchy of %q", key)
				}
				got[key] = m.place(group)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestLimitWrites: each limit as the write that sets it, on either kind.
func TestLimitWrites(t *testing.T) {
	l := Limits{MemoryBytes: 512 << 20, AgentMemoryBytes: 256 << 20, PIDs: 1024, CPUs: 1.5}
	for _, test := range []struct {
		group labCgroup
		want  []string
	}{
		{labCgroup{Dir: "/u/lab", V2: true, Controllers: []string{"cpu", "memory", "pids"}}, []string{
			"/u/lab/work/memory.max=536870912", "/u/lab/work/memory.swap.max=0",
			"/u/lab/agent/memory.max=268435456", "/u/lab/agent/memory.swap.max=0",
			"/u/lab/work/pids.max=1024", "/u/lab/work/cpu.max=150000 100000",
		}},
		{labCgroup{Dir: "/m/lab", Controllers: []string{"memory"}}, []string{
			"/m/lab/work/memory.limit_in_bytes=536870912", "/m/lab/work/memory.memsw.limit_in_bytes=536870912",
			"/m/lab/agent/memory.limit_in_bytes=268435456", "/m/lab/agent/memory.memsw.limit_in_bytes=268435456",
		}},
		{labCgroup{Dir: "/c/lab", Controllers: []string{"cpu"}}, []string{
			"/c/lab/work/cpu.cfs_period_us=100000", "/c/lab/work/cpu.cfs_quota_us=150000",
		}},
		{labCgroup{Dir: "/p/lab", Controllers: []string{"pids"}}, []string{"/p/lab/work/pids.max=1024"}},
		{labCgroup{Dir: "/x/lab", V2: true}, nil},
	} {
		var got []string
		for _, w := range test.group.limitWrites(l) {
			got = append(got, w.dir+"/"+w.file+"="+w.value)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", test.group.Dir, got, test.want)
		}
	}
}

func TestCgroupsPath(t *testing.T) {
	v2 := labCgroup{Dir: "/sys/fs/cgroup/podlab-1/lab", V2: true, Controllers: []string{"memory"}}
	v1 := labCgroup{Dir: "/sys/fs/cgroup/memory/podlab-1/lab", Controllers: []string{"memory"}}
	if got := cgroupsPath([]labCgroup{v2}); got != "/podlab-1/lab/work" {
		t.Errorf("on v2: %q, want the path from the root", got)
	}
	if got := cgroupsPath([]labCgroup{v1, v2}); got != "work" {
		t.Errorf("on v1: %q, want the path from where the runtime starts", got)
	}
}

func TestLastWords(t *testing.T) {
	long := strings.Repeat("goroutine 1 [running]:\n", 1000)
	for _, test := range []struct{ log, want string }{
		{"all is well", "all is well"},
		{"before\npanic: the reason\n\n" + long, "panic: the reason"},
		{"no crash: says panic: in a line\nend", "no crash"},
		{long + "the end", "the end"},
	} {
		got := lastWords(test.log)
		if !strings.Contains(got, test.want) || len(got) > tailBytes {
			t.Errorf("lastWords(%.30q…) = %d bytes %.60q…, want %q in it", test.log, len(got), got, test.want)
		}
		if strings.HasPrefix(test.want, "panic") && !strings.HasPrefix(got, test.want) {
			t.Errorf("a crash must come first: %.60q", got)
		}
	}
}

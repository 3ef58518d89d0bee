package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// readyWithin is for a whole deployment to come up, on a machine that does other things too.
	readyWithin = 3 * time.Minute
	// stopWithin is for one to end: longer than dev itself waits before it kills.
	stopWithin = time.Minute
	// settleWithin is for a deployment to get over a fault.
	settleWithin = 3 * time.Minute
)

// endpoints is DIR/endpoints.json.
type endpoints struct {
	Regions map[string]struct {
		Kafka []string `json:"kafka"`
		GRPC  []string `json:"grpc"`
		HTTP  []string `json:"http"`
		PIDs  []int    `json:"pids"`
	} `json:"regions"`
}

// deployment is a running `watershed dev`.
type deployment struct {
	t   testing.TB
	dir string
	endpoints
	process *process
	output  *tail
}

// startDev runs dev on a folder and waits until every node is ready. The test's end stops it.
func startDev(t testing.TB, dir string, flags ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: dir}
	d.start(flags...)
	t.Cleanup(func() {
		if t.Failed() {
			d.logs()
		}
		d.stop()
	})
	return d
}

func (d *deployment) start(flags ...string) {
	d.t.Helper()
	// One that was killed leaves its endpoints, which are not those of this one.
	if err := os.Remove(filepath.Join(d.dir, "endpoints.json")); err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	cmd := exec.Command(binary(d.t), append([]string{"dev", "--data", d.dir}, flags...)...)
	d.output = new(tail)
	cmd.Stdout, cmd.Stderr = d.output, d.output
	cmd.Env = environment()
	var err error
	if d.process, err = spawn(cmd); err != nil {
		d.t.Fatal(err)
	}
	await(d.t, readyWithin, "the deployment to be ready", func() (bool, string) {
		if d.process.ended() {
			d.logs()
			d.t.Fatalf("dev has ended: %v", d.process.err)
		}
		return d.read()
	})
}

// read reads endpoints.json.
func (d *deployment) read() (ok bool, why string) {
	text, err := os.ReadFile(filepath.Join(d.dir, "endpoints.json"))
	if err != nil {
		return false, err.Error()
	}
	var e endpoints
	if err := json.Unmarshal(text, &e); err != nil {
		return false, err.Error()
	}
	d.endpoints = e
	return true, ""
}

// stop ends the deployment as Ctrl-C does, and sees that nothing is left of it. It can be called twice.
func (d *deployment) stop() {
	d.t.Helper()
	if d.process.ended() {
		return
	}
	if !d.process.stop(stopWithin) {
		d.t.Errorf("dev did not stop within %s", stopWithin)
	} else if d.process.err != nil {
		d.t.Errorf("dev stopped with %v:\n%s", d.process.err, d.output)
	}
	for region, r := range d.Regions {
		for i, pid := range r.PIDs {
			if alive(pid) {
				d.t.Errorf("%s-%d is left, pid %d", region, i+1, pid)
			}
		}
	}
}

// alive says whether a process runs; one that waits to be reaped does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	after := text[strings.LastIndexByte(string(text), ')')+1:]
	return !strings.HasPrefix(strings.TrimSpace(string(after)), "Z")
}

// logs prints the ends of everything that was logged.
func (d *deployment) logs() {
	d.t.Logf("dev said:\n%s", d.output)
	names, err := filepath.Glob(filepath.Join(d.dir, "*", "*", "*.log"))
	if err != nil {
		d.t.Error(err)
	}
	for _, name := range names {
		d.t.Logf("end of %s:\n%s", name, lastLines(name, 4096))
	}
}

// lastLines returns the whole lines of a file's last n bytes.
func lastLines(name string, n int) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	if over := len(text) - n; over > 0 {
		text = text[over:]
		_, rest, _ := strings.Cut(string(text), "\n")
		return rest
	}
	return string(text)
}

// order gives the running dev an order: restart NODE, cut A B, heal A B.
func (d *deployment) order(args ...string) {
	d.t.Helper()
	must(d.t, append(append([]string{"dev"}, args...), "--data", d.dir)...)
}

// kill ends a node as kill -9 does, and waits until it is gone. Nodes are counted from 0.
func (d *deployment) kill(region string, node int) {
	d.t.Helper()
	pid := d.Regions[region].PIDs[node]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		d.t.Fatalf("kill %s-%d: %v", region, node+1, err)
	}
	await(d.t, 30*time.Second, "a killed node to be gone", func() (bool, string) {
		return !alive(pid), fmt.Sprintf("pid %d runs", pid)
	})
}

// restart starts a node again and waits until it is ready under a new pid.
func (d *deployment) restart(region string, node int) {
	d.t.Helper()
	before := d.Regions[region].PIDs[node]
	d.order("restart", nodeName(region, node))
	await(d.t, settleWithin, "the new pid in endpoints.json", func() (bool, string) {
		ok, why := d.read()
		return ok && d.Regions[region].PIDs[node] != before, why
	})
	d.ready(region, node)
}

// killAll ends every node of a region that is left, all at once.
func (d *deployment) killAll(region string) {
	d.t.Helper()
	var left []int
	for _, pid := range d.Regions[region].PIDs {
		if alive(pid) {
			left = append(left, pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
	await(d.t, 30*time.Second, "killed nodes to be gone", func() (bool, string) {
		return !slices.ContainsFunc(left, alive), fmt.Sprintf("one of %v runs", left)
	})
}

// restartAll starts the dead nodes of a region again, all at once: none can be ready before there is a majority.
func (d *deployment) restartAll(region string) {
	d.t.Helper()
	var orders []*process
	var outputs []*tail
	for node, pid := range d.Regions[region].PIDs {
		if alive(pid) {
			continue
		}
		cmd, output := exec.Command(binary(d.t), "dev", "restart", nodeName(region, node), "--data", d.dir), new(tail)
		cmd.Stdout, cmd.Stderr = output, output
		p, err := spawn(cmd)
		if err != nil {
			d.t.Fatal(err)
		}
		orders, outputs = append(orders, p), append(outputs, output)
	}
	for i, p := range orders {
		if err := p.wait(); err != nil {
			d.t.Errorf("dev restart: %v: %s", err, outputs[i])
		}
	}
	for node := range d.Regions[region].PIDs {
		if ok, why := d.read(); !ok {
			d.t.Fatal(why)
		}
		d.ready(region, node)
	}
}

// ready waits until a node says that it is.
func (d *deployment) ready(region string, node int) {
	d.t.Helper()
	await(d.t, settleWithin, nodeName(region, node)+" to be ready", func() (bool, string) {
		return httpOK("http://" + d.Regions[region].HTTP[node] + "/readyz")
	})
}

func nodeName(region string, node int) string { return fmt.Sprintf("%s-%d", region, node+1) }

// httpOK says whether a page answers with 200.
func httpOK(url string) (bool, string) {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return false, err.Error()
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK, answer.Status
}

// regions lists the regions' names, sorted.
func (d *deployment) regions() []string {
	var names []string
	for name := range d.Regions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// endpoint returns flags that reach a region by any of its nodes.
func (d *deployment) endpoint(region string) []string {
	var flags []string
	for _, address := range d.Regions[region].GRPC {
		flags = append(flags, "--endpoint", address)
	}
	return flags
}

// apply applies job files in a region.
func (d *deployment) apply(region string, jobs ...string) {
	d.t.Helper()
	for _, job := range jobs {
		must(d.t, append([]string{"job", "apply", job, "--timeout", "60s"}, d.endpoint(region)...)...)
	}
}

package coordinator

import (
	"cmp"
	"slices"

	"github.com/watershed-db/watershed/crdt"
)

// Task is one source of one generation: the unit that is assigned to a worker.
type Task struct {
	Generation crdt.GenerationID
	Source     crdt.Source
}

// CompareTasks orders tasks by generation, then source.
func CompareTasks(a, b Task) int {
	return cmp.Or(slices.Compare(a.Generation[:], b.Generation[:]), crdt.CompareSources(a.Source, b.Source))
}

// Assign spreads tasks over workers. It is a pure function: the same arguments give the same answer in any order of
// tasks and workers. Each task goes to one worker; counts per generation, and over all, differ by as little as keeping
// every task where it stands allows: a task moves only away from a worker that is gone, or from one that has at least
// two more of its generation than another. With no worker, no task is assigned.
//
// Who works a source is best effort; no result depends on it.
func Assign(tasks []Task, workers []string, now map[Task]string) map[Task]string {
	out := make(map[Task]string, len(tasks))
	if len(workers) == 0 {
		return out
	}
	tasks, workers = slices.Clone(tasks), slices.Clone(workers)
	slices.SortFunc(tasks, CompareTasks)
	slices.Sort(workers)
	total := make(map[string]int, len(workers))
	for from := 0; from < len(tasks); {
		to := from
		for to < len(tasks) && tasks[to].Generation == tasks[from].Generation {
			to++
		}
		assignGeneration(tasks[from:to], workers, now, total, out)
		from = to
	}
	return out
}

// assignGeneration assigns the tasks of one generation; total counts what each worker has of the generations before.
func assignGeneration(tasks []Task, workers []string, now map[Task]string, total map[string]int, out map[Task]string) {
	own := make(map[string][]Task, len(workers))
	for _, w := range workers {
		own[w] = nil
	}
	var free []Task
	for _, t := range tasks {
		w, ok := now[t]
		if _, alive := own[w]; ok && alive {
			own[w] = append(own[w], t)
		} else {
			free = append(free, t)
		}
	}
	// fewer returns the worker with the least of this generation, then the least of all, then the first by name.
	fewer := func(a, b string) int {
		return cmp.Or(cmp.Compare(len(own[a]), len(own[b])), cmp.Compare(total[a]+len(own[a]), total[b]+len(own[b])),
			cmp.Compare(a, b))
	}
	for _, t := range free {
		w := slices.MinFunc(workers, fewer)
		own[w] = append(own[w], t)
	}
	for {
		least, most := slices.MinFunc(workers, fewer), slices.MaxFunc(workers, fewer)
		if len(own[most])-len(own[least]) < 2 {
			break
		}
		last := len(own[most]) - 1
		own[least] = append(own[least], own[most][last])
		own[most] = own[most][:last]
	}
	for _, w := range workers {
		total[w] += len(own[w])
		for _, t := range own[w] {
			out[t] = w
		}
	}
}

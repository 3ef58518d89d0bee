package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/strict"
)

const small = `deployment: d
region: a
node: n1
data: /tmp/x
shards: 2
regions:
  - {name: a, member: 1}
nodes:
  - {id: n1, raft: "127.0.0.1:1", grpc: "127.0.0.1:2", http: "127.0.0.1:3"}
kafka: {brokers: ["127.0.0.1:4"]}
`

func TestParseFillsInDefaults(t *testing.T) {
	c, err := Parse("n.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if c.Owner != "a" || c.Listen.GRPC != "127.0.0.1:2" ||
		c.Worker.Memory != 256<<20 || c.Worker.FlushInterval.D() != 40*time.Millisecond || c.Log.Level != "info" {
		t.Fatalf("%+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
}

// The example describes every field: none is left at its zero value.
func TestExampleHasEveryField(t *testing.T) {
	src, err := os.ReadFile("../../deploy/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("deploy/node.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(src, &doc); err != nil {
		t.Fatal(err)
	}
	var walk func(v reflect.Value, doc any, path string)
	walk = func(v reflect.Value, doc any, path string) {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		switch v.Kind() {
		case reflect.Slice:
			list, _ := doc.([]any)
			if len(list) == 0 {
				t.Errorf("%s is not in the example", path)
				return
			}
			walk(v.Index(v.Len()-1), list[len(list)-1], path+"[]")
		case reflect.Struct:
			m, ok := doc.(map[string]any)
			if !ok {
				t.Errorf("%s is not in the example", path)
			}
			for i := range v.NumField() {
				name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
				walk(v.Field(i), m[name], path+"."+name)
			}
		default:
			if doc == nil {
				t.Errorf("%s is not in the example", path)
			}
		}
	}
	walk(reflect.ValueOf(c), map[string]any(doc), "")
}

// What Parse read can be written and read again.
func TestMarshalRoundTrip(t *testing.T) {
	for _, file := range []string{small} {
		c, err := Parse("n.yaml", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		out, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("n.yaml", out)
		if err != nil {
			t.Fatalf("%v in:\n%s", err, out)
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v became %+v", c, again)
		}
	}
}

func TestRules(t *testing.T) {
	two := strings.Replace(small, "  - {name: a, member: 1}\n", "  - {name: a, member: 1}\n  - {name: b, member: 2, grpc: [\"h:1\"]}\n", 1)
	for name, x := range map[string]struct{ file, old, with, want string }{
		"empty file":           {"", "", "", "n.yaml:1:1: the file is empty"},
		"syntax":               {small, "shards: 2", "shards: [2", "n.yaml:"},
		"second document":      {small, "kafka:", "---\nkafka:", "second YAML document"},
		"no mapping":           {"- a\n", "", "", "n.yaml:1:1: the configuration is a list"},
		"unknown field":        {small, "shards: 2", "shard: 2", `n.yaml:5:1: unknown field "shard"`},
		"unknown nested field": {small, "kafka: {", "kafka: {broker: x, ", `n.yaml:10:9: unknown field "broker" in kafka`},
		"duplicate":            {small, "shards: 2", "shards: 2\nshards: 3", `n.yaml:6:1: duplicate "shards"`},
		"missing":              {small, "shards: 2\n", "", `lacks "shards"`},
		"wrong type":           {small, "shards: 2", "shards: two", `n.yaml:5:9: shards is the text "two"; expected a whole number`},
		"fraction":             {small, "shards: 2", "shards: 2.5", `shards is the number 2.5`},
		"number for a name":    {small, "node: n1", "node: 1", `n.yaml:3:7: node is the number 1; expected a text`},
		"no list":              {small, `brokers: ["127.0.0.1:4"]`, "brokers: x", `kafka.brokers is the text "x"; expected a list`},
		"bad duration":         {small, "shards: 2", "shards: 2\nraft: {commit: 5}", `n.yaml:6:16: raft.commit is the number 5; expected a duration`},
		"negative duration":    {small, "shards: 2", "shards: 2\nraft: {commit: -5s}", `raft.commit is the text "-5s"`},
		"bad size":             {small, "shards: 2", "shards: 2\nworker: {memory: 64MB}", `worker.memory is the text "64MB"; expected a size`},
		"small memory":         {small, "shards: 2", "shards: 2\nworker: {memory: 64KiB}", `n.yaml:6:18: worker.memory is 64KiB; expected 16MiB to`},
		"short flush":          {small, "shards: 2", "shards: 2\nworker: {flush_interval: 1us}", `worker.flush_interval is 1µs`},
		"shards":               {small, "shards: 2", "shards: 0", `n.yaml:5:9: shards is 0; expected 1 to 1024`},
		"deployment":           {small, "deployment: d", "deployment: a b", `deployment is "a b"`},
		"data":                 {small, "data: /tmp/x", `data: ""`, `data is empty`},
		"no region":            {small, "region: a", "region: c", `n.yaml:2:9: region is "c"; expected one of regions`},
		"region name":          {two, "name: b", "name: B!", `regions[1].name is "B!"`},
		"region twice":         {two, "name: b", "name: a", `regions[1].name is "a" again`},
		"member twice":         {two, "member: 2", "member: 1", `regions[1].member is 1 again`},
		"member zero":          {two, "member: 2", "member: 0", `regions[1].member is 0`},
		"member too big":       {two, "member: 2", "member: 65536", `regions[1].member is the number 65536`},
		"peer without address": {two, `, grpc: ["h:1"]`, "", `regions[1] lacks "grpc"`},
		"peer address":         {two, `"h:1"`, `"h"`, `regions[1].grpc[0] is "h"; expected HOST:PORT`},
		"owner":                {small, "shards: 2", "shards: 2\nowner: z", `n.yaml:6:8: owner is "z"`},
		"node":                 {small, "node: n1", "node: n2", `node is "n2"; expected the id of one of nodes`},
		"address twice":        {small, "127.0.0.1:2", "127.0.0.1:1", `nodes[0].grpc is "127.0.0.1:1" again`},
		"address":              {small, "127.0.0.1:3", "localhost", `nodes[0].http is "localhost"`},
		"listen":               {small, "shards: 2", "shards: 2\nlisten: {grpc: x}", `listen.grpc is "x"`},
		"brokers":              {small, `["127.0.0.1:4"]`, "[]", `kafka.brokers is empty`},
		"broker":               {small, "127.0.0.1:4", "nowhere", `kafka.brokers[0] is "nowhere"`},
		"tls":                  {small, "kafka: {", "kafka: {tls: {cert: x}, ", `kafka.tls has one of cert and key`},
		"mechanism":            {small, "kafka: {", `kafka: {sasl: {mechanism: x, user: u, password: "env:P"}, `, `kafka.sasl.mechanism is "x"`},
		"election":             {small, "shards: 2", "shards: 2\nraft: {heartbeat: 1s, election: 500ms}", `raft.election is 500ms`},
		"lease":                {small, "shards: 2", "shards: 2\nraft: {heartbeat: 1s, lease: 2s}", `raft.lease is 2s`},
		"checkpoints url":      {small, "shards: 2", "shards: 2\ncheckpoints: {url: \"s3://u:hunter2@b/p\"}", `n.yaml:6:20: checkpoints.url is not the place of checkpoints`},
		"checkpoints keep":     {small, "shards: 2", "shards: 2\ncheckpoints: {keep: -1}", `checkpoints.keep is -1`},
		"checkpoints interval": {small, "shards: 2", "shards: 2\ncheckpoints: {interval: 1ms}", `checkpoints.interval is 1ms`},
		"checkpoints rate":     {small, "shards: 2", "shards: 2\ncheckpoints: {rate: 1KiB}", `checkpoints.rate is 1KiB`},
		"restore from nowhere": {small, "shards: 2", "shards: 2\ncheckpoints: {restore: latest}", `checkpoints.restore is given without it`},
		"log level":            {small, "shards: 2", "shards: 2\nlog: {level: loud}", `log.level is "loud"`},
		"log format":           {small, "shards: 2", "shards: 2\nlog: {format: xml}", `log.format is "xml"`},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(x.file, x.old) {
				t.Fatalf("the file lacks %q", x.old)
			}
			_, err := Parse("n.yaml", []byte(strings.Replace(x.file, x.old, x.with, 1)))
			var list strict.ErrorList
			if !errors.As(err, &list) {
				t.Fatalf("taken, or another error: %v", err)
			}
			if !strings.Contains(err.Error(), x.want) {
				t.Fatalf("%v\nlacks %q", err, x.want)
			}
		})
	}
}

func TestSecretIsNotRepeated(t *testing.T) {
	file := strings.Replace(small, "kafka: {", "kafka: {sasl: {mechanism: plain, user: u, password: hunter2}, ", 1)
	_, err := Parse("n.yaml", []byte(file))
	if err == nil || !strings.Contains(err.Error(), "kafka.sasl.password") || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("a: &x [*x]"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("n.yaml", src)
		if err == nil && c.Validate() != nil {
			t.Fatal("taken, though it breaks a rule")
		}
	})
}

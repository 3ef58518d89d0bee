package main

import (
	"maps"
	"runtime/debug"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/dev"
	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region"
)

// versionJSON says what a binary is and what it understands.
type versionJSON struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // of the sources, "" where the build does not know
	Modified bool   `json:"modified"` // since that revision
	Go       string `json:"go"`
	API      string `json:"api"`
	Folder   int    `json:"data_folder"`
	// Formats are the versions of everything that is written to disks, stores and connections; docs/upgrade.md names them.
	Formats map[string]int `json:"formats"`
	// Builtins are the versions of everything that a job's results depend on.
	Builtins map[string]uint16 `json:"builtins"`
}

func newVersion() *cobra.Command {
	var o printing
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this binary and of what it reads and writes",
		Example:           "  watershed version --output json",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := o.format(cmd)
			if err != nil {
				return err
			}
			v := version()
			if f != output.Table {
				return output.Object(cmd.OutOrStdout(), f, v)
			}
			t := output.NewTable(cmd.OutOrStdout(), "watershed", v.Version)
			t.Add("revision", v.Revision)
			t.Add("go", v.Go)
			t.Add("api", v.API)
			for _, name := range slices.Sorted(maps.Keys(v.Formats)) {
				t.Add(name, strconv.Itoa(v.Formats[name]))
			}
			return t.Flush()
		},
	}
	o.flags(cmd)
	return cmd
}

func version() versionJSON {
	v := versionJSON{
		Version: "unknown", API: string(watershedv1.File_watershed_v1_state_proto.Package()), Folder: region.FolderVersion,
		Formats: region.Formats(), Builtins: map[string]uint16{},
	}
	maps.Copy(v.Formats, dev.Formats())
	for _, p := range job.Announced() {
		v.Builtins[p.Name] = p.Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = info.Main.Version, info.GoVersion
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

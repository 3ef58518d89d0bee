// Package region is a node of a region: its data folder, and the wiring of replicas, coordinator, services and pages.
package region

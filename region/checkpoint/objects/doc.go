// Package objects is the little that checkpoints need of an object store: small objects written under a condition, big
// ones by parts, listing and removal. S3 speaks to any server of that protocol; Memory is one for tests.
package objects

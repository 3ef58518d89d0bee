// Package dev runs a whole deployment on one machine: every node and every embedded Kafka an OS process of its own, and
// the regions joined by links that can be cut.
package dev

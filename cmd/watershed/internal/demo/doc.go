// Package demo shows on one machine that the idea holds: a deployment of two regions takes the traffic of a ride-hailing
// service while nodes are killed and the regions cut apart, and at the end every row of both regions is compared with
// what was sent.
package demo

// Package client talks to a deployment of Watershed over its public API.
//
// Any node of any region answers. A Client tries the endpoints it was given in turn, follows a node that names the one
// to ask instead, and tries again with growing pauses while the answer is UNAVAILABLE and the caller's time is not over.
// All its calls can be repeated without harm, so a call whose outcome can't be known is simply made again.
//
// Errors carry the gRPC status of the last answer: match them with status.Code and Detail, or with the sentinels here.
package client

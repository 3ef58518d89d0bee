package demo

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// What the job file says, as the model and the generator know it.
const (
	requestsTopic = "ride-requests"
	pingsTopic    = "driver-pings"
	sinkTopic     = "surge"
	jobName       = "surge"

	windowSize  = 5_000 // milliseconds, like all of these
	lateness    = 3_000
	bound       = 1_000
	maxFuture   = 60_000
	hour        = 3_600_000
	year        = 365 * 24 * hour
	cellLetters = 6
)

// event is a record and what it means. The model goes by the meaning and never reads the record.
type event struct {
	body []byte
	time int64 // event time, ms

	undecodable bool // no record at all: it has no time
	filtered    bool // the job's where refuses it
	invalid     bool // it has a time, and lacks something else

	request bool // of a rider; else a driver's ping
	cell    string
	fare    float64
	driver  string
	marker  bool // whose way into a query is timed
}

// place is a spot and the cell that it lies in.
type place struct {
	lat, lon float64
	cell     string
}

func at(lat, lon float64) place { return place{lat, lon, geohash(lat, lon, cellLetters)} }

func (p place) json() string {
	return `"lat":` + strconv.FormatFloat(p.lat, 'g', -1, 64) + `,"lon":` + strconv.FormatFloat(p.lon, 'g', -1, 64)
}

const (
	hotPlaces  = 3  // which half of all events come from
	gridPlaces = 12 // the city is a square of so many cells a side
	drivers    = 400
)

// city lists the places of a city; the first few are hot.
func city() []place {
	var out []place
	for i := range gridPlaces {
		for k := range gridPlaces {
			out = append(out, at(40.70+float64(i)*0.0055, -74.01+float64(k)*0.011))
		}
	}
	return out
}

// markerPlace is a spot in the sea where nobody but a region's markers calls a car.
func markerPlace(region int) place { return at(5.0, -30.0+float64(region)) }

// script makes up the events of one partition. Both regions serve one city, so most rows hold events of both.
type script struct {
	random   *rand.Rand
	places   []place
	requests bool
	marker   place
}

func newScript(seed uint64, requests bool, region int) *script {
	return &script{random: rand.New(rand.NewPCG(seed, 1)), places: city(), requests: requests, marker: markerPlace(region)}
}

// next returns an event as it reaches the log at now: mostly a little out of order, sometimes late, rarely absurd.
func (s *script) next(now int64) event {
	r := s.random
	t := now - r.Int64N(900)
	switch p := r.IntN(1000); {
	case p < 30:
		t = now - 1_000 - r.Int64N(4_000) // slow, most of it within the allowed lateness
	case p < 40:
		t = now - 10_000 - r.Int64N(20_000) // late
	case p < 42:
		t = 0 // a clock that was never set
	case p < 45:
		t = now + maxFuture + hour + r.Int64N(10*year) // a clock that is ahead
	}
	p := s.places[r.IntN(len(s.places))]
	if r.IntN(2) == 0 {
		p = s.places[r.IntN(hotPlaces)]
	}
	if !s.requests {
		return s.ping(t, p)
	}
	return s.request(t, p, 300+r.Int64N(6_000))
}

func (s *script) request(t int64, p place, cents int64) event {
	e := event{time: t, request: true, cell: p.cell, fare: float64(cents) / 100}
	fare := strconv.FormatFloat(e.fare, 'f', 2, 64)
	switch where := p.json(); s.random.IntN(400) {
	case 0:
		e.undecodable = true
		e.body = fmt.Appendf(nil, `{"ts":%d,"rider":`, t)
		return e
	case 1:
		e.invalid = true // its cell can't be told
		e.body = fmt.Appendf(nil, `{"ts":%d,"fare":%s}`, t, fare)
		return e
	case 2:
		e.invalid, fare = true, `"free"`
		e.body = fmt.Appendf(nil, `{"ts":%d,%s,"fare":%s}`, t, where, fare)
		return e
	case 3, 4, 5, 6:
		e.filtered, e.fare, fare = true, 0, "0" // called off
	}
	e.body = fmt.Appendf(nil, `{"ts":%d,"rider":"r%d",%s,"fare":%s}`, t, s.random.IntN(5_000), p.json(), fare)
	return e
}

func (s *script) ping(t int64, p place) event {
	e := event{time: t, cell: p.cell, driver: "d" + strconv.Itoa(s.random.IntN(drivers))}
	if s.random.IntN(400) == 0 {
		e.invalid = true
		e.body = fmt.Appendf(nil, `{"ts":%d,"driver_id":%q}`, t, e.driver)
		return e
	}
	e.body = fmt.Appendf(nil, `{"ts":%d,"driver_id":%q,%s}`, t, e.driver, p.json())
	return e
}

// mark returns the region's marker at now.
func (s *script) mark(now int64) event {
	return event{time: now, request: true, cell: s.marker.cell, fare: 1, marker: true,
		body: fmt.Appendf(nil, `{"ts":%d,"rider":"marker",%s,"fare":1.0}`, now, s.marker.json())}
}

// closing returns an event that moves the watermark past every window with an event of up to now, and counts nowhere.
func (s *script) closing(now int64) event {
	t := closingTime(now)
	if s.requests {
		return event{time: t, request: true, filtered: true, body: fmt.Appendf(nil, `{"ts":%d,%s,"fare":0}`, t, s.marker.json())}
	}
	return event{time: t, invalid: true, body: fmt.Appendf(nil, `{"ts":%d}`, t)}
}

// closingTime is the event time of what closes all windows of up to now.
func closingTime(now int64) int64 { return now + windowSize + lateness + bound }

package oracle

import "fmt"

// Geohash is the expression function geohash(lat, lon, length) by its definition: halve the ranges by turns, longitude
// first, and write five bits a letter. Anything but numbers within [-90, 90] and [-180, 180] is an error.
func Geohash(lat, lon Value, length int) (Value, error) {
	y, err := lat.AsFloat()
	if err != nil {
		return Value{}, fmt.Errorf("geohash: latitude: %w", err)
	}
	x, err := lon.AsFloat()
	if err != nil {
		return Value{}, fmt.Errorf("geohash: longitude: %w", err)
	}
	if y < -90 || y > 90 || x < -180 || x > 180 {
		return Value{}, fmt.Errorf("geohash: %v, %v is not on Earth", y, x)
	}
	south, north, west, east := -90.0, 90.0, -180.0, 180.0
	text, letter := "", 0
	for bit := 0; bit < 5*length; bit++ {
		letter *= 2
		if bit%2 == 0 {
			if mid := (west + east) / 2; x >= mid {
				letter, west = letter+1, mid
			} else {
				east = mid
			}
		} else {
			if mid := (south + north) / 2; y >= mid {
				letter, south = letter+1, mid
			} else {
				north = mid
			}
		}
		if bit%5 == 4 {
			text += string("0123456789bcdefghjkmnpqrstuvwxyz"[letter])
			letter = 0
		}
	}
	return MakeText(text), nil
}

package demo

const geohashLetters = "0123456789bcdefghjkmnpqrstuvwxyz"

// geohash names the cell of a place: five bits a letter, of the longitude and the latitude in turn, each bit a halving of
// the range that is left.
func geohash(lat, lon float64, letters int) string {
	low, high := [2]float64{-180, -90}, [2]float64{180, 90}
	at := [2]float64{lon, lat}
	out := make([]byte, letters)
	for bit := range 5 * letters {
		axis := bit % 2
		middle := (low[axis] + high[axis]) / 2
		out[bit/5] <<= 1
		if at[axis] >= middle {
			out[bit/5] |= 1
			low[axis] = middle
		} else {
			high[axis] = middle
		}
	}
	for i, b := range out {
		out[i] = geohashLetters[b]
	}
	return string(out)
}

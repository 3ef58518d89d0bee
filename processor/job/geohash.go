package job

// maxGeohash is the greatest length of a geohash: 60 bits, 30 for each axis.
const maxGeohash = 12

const geohashAlphabet = "0123456789bcdefghjkmnpqrstuvwxyz"

// appendGeohash appends the geohash of a place: five bits a letter, longitude and latitude by turns, each bit halving
// its range, the upper half taking the middle. It reports false for places that are not on Earth. length is 1 to 12.
func appendGeohash(b []byte, lat, lon float64, length int) ([]byte, bool) {
	if !(lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180) {
		return b, false
	}
	bits := spread(cellOf(lon, -180, 360))<<1 | spread(cellOf(lat, -90, 180))
	for i := 0; i < length; i++ {
		b = append(b, geohashAlphabet[bits>>(55-5*i)&31])
	}
	return b, true
}

// cellOf returns in which of 2^30 equal cells of [low, low+width] x lies. Every boundary low + i*width/2^30 is a float64
// exactly, since low and width are small integers: so one step from the estimate mends its rounding.
func cellOf(x, low, width float64) uint64 {
	const cells = 1 << 30
	step := width / cells
	i := int64((x - low) / step)
	i = min(max(i, 0), cells-1)
	if x < low+float64(float64(i)*step) {
		i--
	} else if i < cells-1 && x >= low+float64(float64(i+1)*step) {
		i++
	}
	return uint64(i)
}

// spread moves bit k of a 30-bit number to bit 2k.
func spread(x uint64) uint64 {
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	x = (x | x<<2) & 0x3333333333333333
	return (x | x<<1) & 0x5555555555555555
}

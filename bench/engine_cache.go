// What CometBFT's cache of transactions takes: `go run bench/engine_cache.go`.
//
// The cache (LRUTxCache in its package mempool) is a list of keys and a map from key to place; here are both alone, with
// entries that come and go as under load, and the heap in use after a collection.
package main

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
)

type key [sha256.Size]byte

func main() {
	for _, size := range []int{100_000, 60_000} {
		places, order := make(map[key]*list.Element, size), list.New()
		pushed := uint64(0)
		for _, upto := range []uint64{200_000, 1_000_000, 2_000_000, 4_000_000, 6_000_000, 12_000_000, 20_000_000} {
			for ; pushed < upto; pushed++ {
				if order.Len() >= size {
					oldest := order.Front()
					delete(places, oldest.Value.(key))
					order.Remove(oldest)
				}
				var number [8]byte
				binary.BigEndian.PutUint64(number[:], pushed)
				fresh := key(sha256.Sum256(number[:]))
				places[fresh] = order.PushBack(fresh)
			}
			var found runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&found)
			fmt.Printf("%d entries, %d pushed: %.1f MB\n", size, pushed, float64(found.HeapAlloc)/1e6)
		}
		runtime.KeepAlive(places)
	}
}

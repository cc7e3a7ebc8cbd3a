// A gateway as one would write it in Go: net/http takes a message, checks that it is JSON, gives it an id and pushes it
// onto a Redis list. Usage: redigo PORT REDIS_PORT
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/gomodule/redigo/redis"
)

type stored struct {
	ID      string          `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

func newID() (string, error) {
	var bytes [16]byte
	_, err := rand.Read(bytes[:])
	return fmt.Sprintf("%x", bytes), err
}

func publish(pool *redis.Pool, w http.ResponseWriter, r *http.Request) (int, error) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !json.Valid(payload) {
		return http.StatusBadRequest, fmt.Errorf("no JSON")
	}
	id, err := newID()
	if err != nil {
		return http.StatusInternalServerError, err
	}
	element, err := json.Marshal(stored{id, payload})
	if err != nil {
		return http.StatusInternalServerError, err
	}
	connection := pool.Get()
	defer connection.Close()
	if _, err := connection.Do("LPUSH", "messages", element); err != nil {
		return http.StatusServiceUnavailable, err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, err = io.WriteString(w, `{"id":"`+id+`"}`)
	return 0, err
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: redigo PORT REDIS_PORT")
	}
	pool := &redis.Pool{
		MaxIdle:   64,
		MaxActive: 64,
		Wait:      true,
		Dial:      func() (redis.Conn, error) { return redis.Dial("tcp", "127.0.0.1:"+os.Args[2]) },
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if status, err := publish(pool, w, r); status != 0 {
			http.Error(w, err.Error(), status)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

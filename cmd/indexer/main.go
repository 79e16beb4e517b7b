// Command indexer makes every event searchable; see indexer --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.Indexer) }

/// Positions of a prompt's rows for a decoder with several rotary axes (Qwen2-VL's multi-axis rotary embedding): a row of an image by its
/// row and column, both counted from where the image begins; text after an image continues after its longer side.
struct PromptPositions {
    private let places: [RowPosition]
    /// Of the first row after the prompt.
    private let next: Int

    /// - Parameter grids: of each image, rows of features from top to bottom and from left to right; in order.
    init(_ elements: [PromptElement], grids: [PatchGrid]) {
        var (places, next, image): ([RowPosition], Int, Int) = ([], 0, -1)
        var (start, columns) = (0, 1)
        places.reserveCapacity(elements.count)
        for element in elements {
            guard case .image(_, let row) = element else {
                places.append(RowPosition(next))
                next += 1
                continue
            }
            if row == 0 || image < 0 {
                image += 1
                let grid = grids.indices.contains(image) ? grids[image] : PatchGrid(rows: 1, columns: 1)
                (start, columns) = (next, max(grid.columns, 1))
                next += max(grid.rows, grid.columns)
            }
            places.append(RowPosition(time: start, height: start + Int(row) / columns, width: start + Int(row) % columns))
        }
        (self.places, self.next) = (places, next)
    }

    /// Of the prompt's rows, and those after it.
    subscript(index: Int) -> RowPosition { index < places.count ? places[index] : RowPosition(next + index - places.count) }
}

extension GenerationTask {
    /// The position of a slot of the layers that have all rows.
    func position(_ index: Int) -> Int { positions?[index].time ?? index }

    /// Positions of some of the prompt's rows and the one after it, where they do not simply follow each other.
    /// - Parameter kept: the rows that are counted, where image tokens were dropped before.
    func rowPositions(_ rows: Range<Int>, kept: [Int]?) -> [RowPosition]? {
        if positions == nil, kept == nil { return nil }
        return rows.map { row in
            let index = kept.map { row < $0.count ? $0[row] : elements.count + row - $0.count } ?? row
            return positions?[index] ?? RowPosition(index)
        }
    }
}

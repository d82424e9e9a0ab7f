/// Finds places for labels at marks so that neither labels nor marks cover each other. In points, y upwards.
struct LabelPlacement {
    private static let mark = (width: 12.0, height: 11.0)
    private let marks: [(x: Double, y: Double)]
    private var taken: [(x: Double, y: Double, width: Double, height: Double)] = []

    init(marks: [(x: Double, y: Double)]) { self.marks = marks }

    /// The first of `offsets` from a mark to its label's middle at which nothing is covered; the first of all if there is none.
    mutating func place(_ mark: (x: Double, y: Double), width: Double, height: Double, among offsets: [(Double, Double)]) -> (Double, Double) {
        let free = offsets.first { offset in
            let (x, y) = (mark.x + offset.0, mark.y + offset.1)
            return taken.allSatisfy { abs($0.x - x) > ($0.width + width) / 2 || abs($0.y - y) > ($0.height + height) / 2 }
                && marks.allSatisfy { abs($0.x - x) > (Self.mark.width + width) / 2 || abs($0.y - y) > (Self.mark.height + height) / 2 }
        }
        let offset = free ?? offsets.first ?? (0, 0)
        taken.append((mark.x + offset.0, mark.y + offset.1, width, height))
        return offset
    }
}

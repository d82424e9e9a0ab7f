/// Brings each column of some rows to mean 0 and deviation 1.
struct Standardization: Sendable {
    /// By column.
    let mean, deviation: [Double]

    /// - Parameters:
    ///   - rows: one for each sample, each `width` long.
    init(_ rows: [[Float]], width: Int) {
        var mean = [Double](repeating: 0, count: width), square = mean
        for row in rows { for (index, value) in row.enumerated() { mean[index] += Double(value) } }
        mean = mean.map { $0 / Double(max(rows.count, 1)) }
        for row in rows { for (index, value) in row.enumerated() { square[index] += (Double(value) - mean[index]) * (Double(value) - mean[index]) } }
        self.mean = mean
        deviation = square.map { max(($0 / Double(max(rows.count, 1))).squareRoot(), 1e-6) }
    }

    func callAsFunction(_ row: [Float]) -> [Double] { row.indices.map { (Double(row[$0]) - mean[$0]) / deviation[$0] } }
}

/// The non-negative `x` that minimizes `|A x - b|`, by the active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23).
package enum NonNegativeLeastSquares {
    /// - Parameters:
    ///   - rows: the rows of A, of equal lengths.
    ///   - targets: b.
    /// - Returns: one value for each column; 0 for columns that say nothing.
    package static func solve(_ rows: [[Double]], _ targets: [Double]) -> [Double] {
        guard let count = rows.first?.count, count > 0 else { return [] }
        var normal = [[Double]](repeating: Array(repeating: 0, count: count), count: count)
        var right = [Double](repeating: 0, count: count)
        for (row, target) in zip(rows, targets) {
            for i in 0 ..< count where row[i] != 0 {
                right[i] += row[i] * target
                for j in 0 ..< count { normal[i][j] += row[i] * row[j] }
            }
        }
        var x = [Double](repeating: 0, count: count)
        var free: [Int] = [], refused: Set<Int> = []
        // Each round frees one column; those that are bound again at once are not tried twice with the same others.
        for _ in 0 ..< 10 * count {
            var candidate = -1, most = 0.0
            for i in 0 ..< count where !free.contains(i) && !refused.contains(i) {
                var slack = right[i]
                for j in 0 ..< count { slack -= normal[i][j] * x[j] }
                guard slack > 1e-10 * abs(right[i]), normal[i][i] > 0 else { continue }
                // The gain of freeing this column alone.
                let gain = slack * slack / normal[i][i]
                if gain > most { (candidate, most) = (i, gain) }
            }
            if candidate < 0 { break }
            free.append(candidate)
            var solved = solve(normal, right, free)
            while let worst = zip(free, solved).filter({ $1 <= 0 }).min(by: { ratio(x, $0) < ratio(x, $1) }) {
                if worst.0 == candidate, x[candidate] == 0 {
                    refused.insert(candidate)
                } else {
                    let step = ratio(x, worst)
                    for (column, value) in zip(free, solved) { x[column] += step * (value - x[column]) }
                    refused.removeAll()
                }
                x[worst.0] = 0
                free.removeAll { $0 == worst.0 }
                solved = solve(normal, right, free)
            }
            for column in 0 ..< count where !free.contains(column) { x[column] = 0 }
            for (column, value) in zip(free, solved) { x[column] = value }
        }
        return x
    }

    /// How far `x` can go towards a solution until a column becomes 0.
    private static func ratio(_ x: [Double], _ column: (index: Int, value: Double)) -> Double {
        let difference = x[column.index] - column.value
        return difference > 0 ? x[column.index] / difference : 0
    }

    /// The normal equations of some columns, by Cholesky's factorization; columns that depend on earlier ones get 0.
    private static func solve(_ normal: [[Double]], _ right: [Double], _ columns: [Int]) -> [Double] {
        let n = columns.count
        var lower = [[Double]](repeating: Array(repeating: 0, count: n), count: n), half = [Double](repeating: 0, count: n)
        for i in 0 ..< n {
            for j in 0 ... i {
                let sum = (0 ..< j).reduce(normal[columns[i]][columns[j]]) { $0 - lower[i][$1] * lower[j][$1] }
                if i == j {
                    lower[i][i] = sum > 1e-12 * normal[columns[i]][columns[i]] ? sum.squareRoot() : 0
                } else {
                    lower[i][j] = lower[j][j] > 0 ? sum / lower[j][j] : 0
                }
            }
            let sum = (0 ..< i).reduce(right[columns[i]]) { $0 - lower[i][$1] * half[$1] }
            half[i] = lower[i][i] > 0 ? sum / lower[i][i] : 0
        }
        var x = [Double](repeating: 0, count: n)
        for i in (0 ..< n).reversed() where lower[i][i] > 0 {
            x[i] = (i + 1 ..< n).reduce(half[i]) { $0 - lower[$1][i] * x[$1] } / lower[i][i]
        }
        return x
    }
}

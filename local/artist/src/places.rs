//! The settings, each composed from the vocabulary of [`crate::scenery`].

use crate::canvas::{Shape, add, mix, scale, smooth};
use crate::figure::Figure;
use crate::noise::{fractal, noise};
use crate::outlines::*;
use crate::palette::rgb;
use crate::reading::{Genre, Place};
use crate::scenery::{Profile, Scene, at};

impl Scene<'_> {
    /// Paint the whole scene, without words.
    pub(crate) fn compose(mut self) {
        match self.brief.place {
            Place::Street => self.street(),
            Place::Canal => self.canal(),
            Place::Shop => self.shop(),
            Place::Manor => self.manor(),
            Place::Forest => self.forest(),
            Place::Desert => self.desert(),
            Place::Peaks => self.peaks(),
            Place::Planet => self.planet(),
            Place::Sea => self.sea(),
            Place::Deep => self.deep(),
        }
        self.weather();
    }

    fn desert(&mut self) {
        self.sky_with_disc(1.0, 0.95);
        let (horizon, height, drop) = (self.horizon, self.height, self.feet - self.horizon);
        if self.brief.mentions("egypt,pyramid,pharaoh,tomb,sahara") {
            for (away, tall) in [(-0.32, 0.12), (0.04, 0.09), (0.3, 0.15)] {
                for (outline, depth) in [(PYRAMID, 0.3), (PYRAMID_SHADE, 0.55)] {
                    let x = self.focus + away * self.width;
                    let shape = self.mirrored(outline, x, horizon + drop * 0.35, tall * height);
                    self.canvas.paint(&shape, self.palette.depth(depth), 1.0);
                }
            }
        } else {
            self.ridge(Profile::Mesa, horizon, height * 0.13, 2.6, 0.18);
            self.fog(horizon, height * 0.08, 0.6);
            self.ridge(Profile::Mesa, horizon + height * 0.01, height * 0.09, 3.4, 0.36);
        }
        self.fog(horizon, height * 0.07, 0.6);
        self.ridge(Profile::Rolling, horizon + drop * 0.3, height * 0.02, 2.2, 0.5);
        self.ridge(Profile::Rolling, horizon + drop * 0.65, height * 0.03, 1.8, 0.6);
        let line = self.ridge(Profile::Rolling, self.feet + height * 0.012, height * 0.03, 1.3, 0.74);
        if self.brief.genre == Genre::Western {
            for away in [-1.5, 1.3, 1.9] {
                let x = self.focus + (away + self.random.range(-0.2, 0.2)) * self.hero;
                let tall = self.hero * self.random.range(0.45, 0.8);
                let cactus = self.outline(CACTUS, x, at(&line, x) + 2.0, tall);
                self.silhouette(&[cactus], 0.92);
            }
        }
        self.stand(&line);
        self.ridge(Profile::Rolling, self.feet + height * 0.14, height * 0.06, 1.2, 0.95);
    }

    fn peaks(&mut self) {
        let samurai = self.brief.genre == Genre::Samurai;
        self.sky_with_disc(if samurai { 1.25 } else { 0.75 }, 1.0);
        let (height, far) = (self.height, self.horizon - self.height * 0.05);
        for (i, depth) in [0.08, 0.24, 0.4, 0.55].into_iter().enumerate() {
            let base = far + height * 0.035 * i as f32;
            self.ridge(Profile::Jagged, base, height * (0.16 - 0.028 * i as f32), 2.2, depth);
            if i == 2 && (samurai || self.brief.genre == Genre::Fantasy) {
                let (away, edge) = (self.random.range(0.95, 1.3), self.hero * 0.6);
                let x = (self.focus - self.side * self.hero * away).max(edge).min(self.width - edge);
                let landmark = if samurai { PAGODA } else { CASTLE };
                let shape = self.outline(landmark, x, base - height * 0.015, self.hero * 1.1);
                self.silhouette(&[shape], 0.5);
            }
            self.fog(base + height * 0.035, height * 0.07, 0.5);
        }
        let base = self.feet - self.hero * 0.08;
        let line = self.ridge(Profile::Rolling, base, height * 0.03, 1.6, 0.72);
        self.pines(&line, self.hero * 0.75, 0.74);
        self.fog(base + height * 0.01, height * 0.06, 0.4);
        let line = self.hill(height * 0.035);
        self.stand(&line);
    }

    fn forest(&mut self) {
        self.sky_with_disc(0.7, 1.0);
        for (i, depth) in [0.15, 0.3, 0.46, 0.62, 0.8].into_iter().enumerate() {
            let base = self.horizon + (self.feet - self.horizon) * i as f32 / 5.0;
            let line = self.ridge(Profile::Rolling, base, self.height * 0.02, 1.8, depth);
            self.pines(&line, self.hero * (0.9 + 0.4 * i as f32), depth);
            self.fog(base - self.hero * 0.1, self.height * 0.1, 0.55 - 0.09 * i as f32);
        }
        let line = self.hill(self.height * 0.03);
        self.stand(&line);
    }

    fn sea(&mut self) {
        self.horizon -= self.hero * 0.2;
        let (x, _) = self.sky_with_disc(0.6, 1.0);
        let (height, horizon, hero) = (self.height, self.horizon, self.hero);
        self.ridge(Profile::Jagged, horizon + height * 0.02, height * 0.08, 2.6, 0.15);
        self.fog(horizon, height * 0.05, 0.5);
        let shore = self.focus - self.side * hero * self.random.range(1.1, 1.4);
        if self.brief.mentions("lighthouse,phare,leuchtturm,faro") {
            self.lighthouse(shore);
        } else if self.brief.mentions("ship,pirate,boat,captain,navy,sail,voyage,treasure,vessel") {
            let ship = self.outline(SHIP, shore, horizon + 1.0, hero);
            self.silhouette(&[ship], 0.66);
        }
        self.water(0.85, x);
        self.jetty();
        self.person(&Figure::cast(self.brief), self.focus, self.feet, hero);
    }

    /// Planks that lead from below to the hero.
    fn jetty(&mut self) {
        let (x, y, foot) = (self.focus, self.feet - self.hero * 0.02, self.height);
        let (near, far) = (self.hero * 1.3, self.hero * 0.2);
        let deck = [(x - far, y), (x + far, y), (x + near, foot), (x - near, foot)];
        let (ink, lit) = (self.palette.ink, mix(self.palette.depth(0.8), self.palette.glow, 0.1));
        self.canvas.fill(&Shape::default().polygon(&deck), |_, py, _| {
            let t = ((py - y) / (foot - y)).clamp(0.0, 1.0).sqrt();
            let gap = if (t * 22.0).fract() < 0.12 { 0.25 } else { 1.0 };
            scale(mix(lit, ink, t), gap)
        });
        let mut posts = Shape::default();
        for t in [0.0, 0.12, 0.3, 0.6] {
            let (half, at) = (far + (near - far) * t, y + (foot - y) * t);
            let (wide, tall) = (self.hero * (0.04 + 0.1 * t), self.hero * (0.16 + 0.4 * t));
            for way in [-1.0, 1.0] {
                posts = posts.rect(x + way * half - wide / 2.0, at - tall, wide, tall * 1.3);
            }
        }
        self.canvas.paint(&posts, ink, 1.0);
    }

    fn lighthouse(&mut self, x: f32) {
        let (y, tall) = (self.horizon - self.hero * 0.2, self.hero * 1.8);
        let lamp = y - tall * 0.92;
        let (light, dark) = (self.palette.light, self.palette.depth(0.9));
        let (accent, width, side) = (scale(self.palette.accent, 0.5), self.width, self.side);
        self.canvas.light(x, lamp, tall * 0.4, self.palette.accent);
        self.canvas.shade((0.0, 0.0), (width, y), |px, py, under| {
            let along = (px - x).abs();
            let off = (py - lamp + along * 0.06).abs() / (4.0 + along * 0.09);
            let strength = (1.0 - along / (width * 0.7)).max(0.0).powi(2);
            add(under, scale(accent, strength * (1.0 - smooth(0.2, 1.2, off))))
        });
        for (outline, color) in [(TOWER, light), (TOWER_BANDS, mix(dark, rgb(0x8A2A22), 0.5))] {
            let shape = self.outline(outline, x, y, tall);
            self.canvas
                .fill(&shape, |px, _, _| mix(color, dark, 0.15 + 0.7 * smooth(-0.09, 0.09, (x - px) * side / tall)));
        }
        let (cap, glass) = (self.outline(TOWER_CAP, x, y, tall), self.outline(TOWER_GLASS, x, y, tall));
        self.canvas.paint(&glass, mix(self.palette.accent, [1.0; 3], 0.5), 1.0);
        self.canvas.paint(&cap, dark, 1.0);
    }

    fn deep(&mut self) {
        let (width, height, unit) = (self.width, self.height, self.unit);
        let (focus, side, hero, seed) = (self.focus, self.side, self.hero, self.seed());
        let [dark, dim, mid, bright] = self.palette.sky;
        let source = (focus + side * width * 0.15, -height * 0.12);
        self.canvas.shade((0.0, 0.0), (width, height), |x, y, _| {
            let wave = 30.0 * unit * noise(x / (190.0 * unit), y / (90.0 * unit), seed);
            let t = (y + wave) / height;
            let water = mix(bright, mid, smooth(-0.15, 0.2, t));
            let water = mix(mix(water, dim, smooth(0.15, 0.55, t)), dark, smooth(0.45, 0.9, t));
            // Shafts of light fan out from a point above the surface.
            let angle = (x - source.0) / (y - source.1);
            let shaft = smooth(-0.1, 0.6, fractal(angle * 6.0, 0.7, 3, seed ^ 2));
            let fade = (1.0 - smooth(0.05, 0.7, t)) * (1.0 - smooth(0.3, 1.3, angle.abs()));
            add(water, scale(bright, 0.45 * shaft * fade))
        });
        let whale = self.brief.mentions("whale,shark,monster,kraken,creature,leviathan,baleine");
        let (swimmer, size) = if whale { (WHALE, 1.9) } else { (SUBMARINE, 1.7) };
        let size = (hero * size).min(height * 0.52);
        let (at, y) = (focus + side * hero * 0.2, (self.feet - hero * 1.6).max(size * 0.8));
        let body = self.mirrored(swimmer, at, y, size);
        self.canvas.fill(&body, |_, py, under| {
            let back = smooth(y - size * 0.6, y - size * 0.35, py);
            mix(under, mix(mid, dim, back), 0.85)
        });
        for (i, depth) in [0.5, 0.68, 0.86].into_iter().enumerate() {
            let base = self.feet - hero * (0.3 - 0.26 * i as f32);
            let line = self.ridge(Profile::Rolling, base, hero * 0.34, 3.0, depth);
            self.grass(&line, hero * (0.14 + 0.1 * i as f32), depth + 0.06);
        }
        let y = self.feet - hero * 0.35;
        if !self.unpeopled() {
            let diver = self.mirrored(DIVER, focus, y, hero * 0.9);
            self.silhouette(&[diver], 1.0);
            let torch = (focus + side * hero * 0.44, y - hero * 0.36);
            self.canvas.light(torch.0, torch.1, hero * 0.9, scale(self.palette.accent, 0.5));
            self.canvas.light(torch.0, torch.1, hero * 0.12, self.palette.accent);
        }
        for _ in 0..50 {
            let (rise, r) = (self.random.range(0.0, 1.0), self.random.range(1.0, 4.5) * unit);
            let x = focus + side * hero * 0.3 + (0.05 + 0.2 * rise) * hero * self.random.range(-1.0, 1.0);
            let bubble = Shape::default().ellipse(x, y - hero * (0.7 + 2.6 * rise), r, r);
            self.canvas.stroke(&bubble, unit, bright, 0.6);
        }
    }

    fn manor(&mut self) {
        self.sky_with_disc(0.62, 1.75);
        let (height, hero, focus) = (self.height, self.hero, self.focus);
        let far = self.ridge(Profile::Rolling, self.horizon, height * 0.03, 2.0, 0.3);
        self.pines(&far, hero * 0.8, 0.36);
        self.fog(self.horizon, height * 0.09, 0.7);
        self.house(self.horizon + hero * 0.08, hero * 1.75);
        self.ridge(Profile::Rolling, self.horizon + hero * 0.08, hero * 0.08, 2.0, 0.5);
        self.fog(self.horizon + hero * 0.06, height * 0.05, 0.6);
        let line = self.hill(height * 0.03);
        self.fence(&line);
        self.fog(self.feet - hero * 0.1, height * 0.06, 0.4);
        for (away, tall) in [(-1.55, 2.4), (1.5, 2.7), (-1.0, 1.4), (1.1, 1.3)] {
            self.tree(focus + away * hero, self.feet + hero * 0.2, tall * hero, 0.8 + 0.07 * tall);
        }
        let figure = Figure::cast(self.brief);
        let tall = hero * if figure.stature < 1.0 { 0.9 } else { 0.62 };
        let y = at(&line, focus) + 2.0 * self.unit;
        self.person(&figure, focus, y, tall);
        if figure.stature < 1.0 && self.brief.genre == Genre::Horror && !self.unpeopled() {
            let (k, side) = (tall * figure.stature / 100.0, -self.side);
            let balloon = Shape::default().svg(BALLOON, |px, py| (focus + side * px * k, y + (py - 100.0) * k));
            self.canvas.glow(&balloon, 10.0 * self.unit, scale(rgb(0xC4161C), 0.3));
            self.canvas.paint(&balloon, rgb(0xC4161C), 1.0);
            self.canvas.light(focus + side * 23.0 * k, y - 146.0 * k, 14.0 * k, [0.6, 0.3, 0.3]);
        }
    }

    /// A gabled house seen from the front, with one lit window.
    fn house(&mut self, y: f32, size: f32) {
        let (x, k) = (self.focus, size / 100.0);
        let front = self.outline(HOUSE, x, y, size);
        self.silhouette(&[front], 0.82);
        let columns = [-38.0, -28.0, 26.0, 35.0].map(|column| [(column, 58.0), (column, 76.0)]);
        let windows = [columns.as_flattened(), &[(-1.6, 42.0), (-14.0, 70.0), (11.0, 70.0)]].concat();
        let arch = |at: (f32, f32)| {
            let (px, py) = (x + at.0 * k, y + (at.1 - 100.0) * k);
            Shape::default().arch(px, py, 3.6 * k, 9.0 * k, 1.5)
        };
        for window in &windows {
            self.canvas.paint(&arch(*window), self.palette.depth(0.62), 0.8);
        }
        let chosen = *self.random.pick(&windows);
        let (px, py) = (x + (chosen.0 + 1.8) * k, y + (chosen.1 - 95.0) * k);
        self.canvas.light(px, py, 30.0 * k, scale(self.palette.accent, 0.5));
        self.canvas.glow(&arch(chosen), 5.0 * self.unit, self.palette.accent);
        self.canvas.paint(&arch(chosen), mix(self.palette.accent, [1.0; 3], 0.3), 1.0);
    }

    fn fence(&mut self, line: &[f32]) {
        let tall = self.hero * 0.28;
        for i in 0..(self.width / tall * 2.0) as usize {
            let x = (i as f32 + 0.5) * tall * 0.5;
            // The fence has a gap for the path.
            if (x - self.focus).abs() > self.hero * 0.42 {
                let pale = self.outline(PALE, x, at(line, x) + tall * 0.15, tall);
                self.canvas.paint(&pale, self.palette.depth(0.92), 1.0);
            }
        }
    }

    fn planet(&mut self) {
        self.sky();
        let (height, hero) = (self.height, self.hero);
        let radius = self.disc_radius() * 1.1;
        let x = self.focus + self.side * radius * 0.3;
        self.globe(x, (self.feet - hero * 1.25 - radius * 0.6).max(radius * 1.1), radius);
        self.clouds(self.horizon - height * 0.3, self.horizon + height * 0.03, -0.12, 0.45);
        self.ridge(Profile::Jagged, self.horizon - height * 0.02, height * 0.14, 2.4, 0.14);
        self.fog(self.horizon, height * 0.07, 0.55);
        self.ridge(Profile::Mesa, self.horizon + height * 0.015, height * 0.06, 2.6, 0.36);
        self.fog(self.horizon + height * 0.03, height * 0.05, 0.45);
        self.station();
        self.ridge(Profile::Rolling, self.feet - hero * 0.1, height * 0.03, 1.7, 0.62);
        self.fog(self.feet - hero * 0.05, height * 0.05, 0.3);
        let line = self.ridge(Profile::Rolling, self.feet + height * 0.014, height * 0.03, 1.4, 0.84);
        self.stand(&line);
    }

    /// A banded planet, lit from the side.
    fn globe(&mut self, x: f32, y: f32, radius: f32) {
        let (seed, side) = (self.seed(), self.side);
        let (light, glow) = (self.palette.light, self.palette.glow);
        self.canvas.light(x, y, radius * 2.6, scale(glow, 0.4));
        self.canvas.fill(&Shape::default().ellipse(x, y, radius, radius), |px, py, under| {
            let (dx, dy) = ((px - x) / radius, (py - y) / radius);
            let front = (1.0 - dx * dx - dy * dy).max(0.0).sqrt();
            let lit = (0.66 * dx * side - 0.4 * dy + 0.55 * front).max(0.0);
            let swirl = fractal(dx * 2.5, dy * 5.0, 3, seed);
            let band = fractal(dx * 0.7 + 0.5 * swirl, dy * 6.0 - dx * side * 1.8, 4, seed ^ 1);
            let body = mix(glow, light, smooth(-0.25, 0.3, band));
            add(mix(scale(under, 0.6), body, (lit * 1.1).min(1.0)), scale(glow, 0.3 * (1.0 - front).powi(3) * lit))
        });
    }

    /// Domes with lit windows and a mast.
    fn station(&mut self) {
        let (x, y, size) = (self.focus - self.side * self.hero * 0.95, self.feet, self.hero * 0.75);
        let (domes, windows) = (self.outline(STATION, x, y, size), self.outline(STATION_WINDOWS, x, y, size));
        self.silhouette(&[domes], 0.62);
        self.canvas.glow(&windows, 6.0 * self.unit, scale(self.palette.accent, 0.8));
        self.canvas.paint(&windows, self.palette.accent, 1.0);
        self.canvas.light(x, y - size * 0.9, size * 0.24, self.palette.accent);
    }

    /// House fronts on both sides that recede to the focus.
    fn walls(&mut self, ground: f32, lit: f32, rise: f32) {
        let reach = (self.width * 0.5).min(self.hero * 1.9);
        for (i, depth) in [0.3, 0.46, 0.66, 0.9].into_iter().enumerate() {
            let t = i as f32 / 3.0;
            for way in [-1.0, 1.0] {
                let away = reach * (0.36 + 0.46 * t + self.random.range(0.0, 0.05));
                let tall = self.hero * (0.9 + 1.4 * t + self.random.range(-0.15, 0.3));
                let (inner, outer) = (self.focus + way * away, self.focus + way * self.width);
                let size = ((inner - outer).abs(), ground - self.horizon + tall);
                self.facade(inner.min(outer), ground - size.1, size, depth, lit, rise);
                let edge = Shape::default().rect(inner - self.unit, ground - size.1, 2.0 * self.unit, size.1);
                self.canvas.paint(&edge, self.palette.rim(), 0.3 * (1.0 - 0.6 * t));
            }
            self.fog(ground, self.height * (0.13 - 0.02 * i as f32), 0.5 - 0.12 * i as f32);
        }
    }

    fn street(&mut self) {
        let neon = self.brief.genre == Genre::SciFi;
        self.sky_with_disc(0.85, 1.3);
        self.towers();
        self.fog(self.horizon, self.height * 0.1, 0.6);
        self.horizon = self.feet - self.hero * 0.12;
        self.walls(self.horizon, if neon { 0.42 } else { 0.22 }, 0.2);
        if neon {
            self.signs();
        }
        for way in [-1.0, 1.0] {
            self.lamp(self.focus + way * self.hero * 0.85, self.horizon + 2.0, self.hero * 0.95);
        }
        self.water(0.6, self.focus);
        self.person(&Figure::cast(self.brief), self.focus, self.feet, self.hero);
    }

    /// A far skyline.
    pub(crate) fn towers(&mut self) {
        let mut x = -10.0;
        while x < self.width {
            let wide = self.hero * self.random.range(0.16, 0.36);
            let away = ((x - self.focus) / self.hero).abs().min(3.0);
            let tall = self.hero * self.random.range(0.35, 1.0) * (0.7 + 0.25 * away);
            let size = (wide * 0.96, tall + self.hero * 0.4);
            self.facade(x, self.horizon - tall, size, 0.2, 0.12, 0.1);
            x += wide.max(2.0);
        }
    }

    /// Upright neon signs on the house fronts.
    fn signs(&mut self) {
        let colors = [self.palette.accent, self.palette.glow, [0.1, 0.75, 1.0], [1.0, 0.12, 0.5]];
        for i in 0..10 {
            let way = if i % 2 == 0 { -1.0 } else { 1.0 };
            let x = self.focus + way * self.hero * self.random.range(0.95, 2.0);
            let y = self.horizon - self.hero * self.random.range(0.6, 1.7);
            let (wide, tall) = (self.hero * 0.1, self.hero * self.random.range(0.3, 0.7));
            let color = *self.random.pick(&colors);
            let frame = Shape::default().rect(x, y, wide, tall);
            let mut strokes = Shape::default();
            for row in 1..(tall / wide * 2.4) as usize {
                let (py, inset) = (y + row as f32 * wide * 0.4, wide * self.random.range(0.18, 0.4));
                strokes = strokes.line(&[(x + inset, py), (x + wide - inset, py)]);
            }
            self.canvas.light(x, y + tall / 2.0, tall * 1.3, scale(color, 0.35));
            self.canvas.glow(&frame, 8.0 * self.unit, scale(color, 0.6));
            self.canvas.paint(&frame, scale(color, 0.1), 1.0);
            self.canvas.stroke(&frame, 1.6 * self.unit, color, 1.0);
            self.canvas.stroke(&strokes, 2.0 * self.unit, mix(color, [1.0; 3], 0.4), 1.0);
        }
    }

    fn canal(&mut self) {
        let (x, _) = self.sky_with_disc(0.9, 1.2);
        let hero = self.hero;
        self.horizon = self.feet + hero * 0.2;
        let water = self.horizon;
        let skyline = self.outline(VENICE, self.focus - self.side * hero * 0.1, water, hero * 1.15);
        self.canvas.paint(&skyline, self.palette.depth(0.3), 1.0);
        self.fog(water - hero * 0.2, self.height * 0.09, 0.45);
        self.walls(water, 0.24, 1.3);
        for way in [-1.0, 1.0] {
            self.lamp(self.focus + way * hero * 1.12, water - hero * 0.08, hero * 0.8);
        }
        let (focus, k, dark) = (self.focus, hero / 100.0, self.palette.depth(0.95));
        let bridge = self.outline(BRIDGE, focus, self.feet + hero, hero);
        self.canvas.paint(&bridge, dark, 1.0);
        let mut rail = Shape::default();
        for i in -30..=30 {
            // The deck is a parabola, see the outline of the bridge.
            let t = i as f32 / 30.0;
            let (px, py) = (focus + t * 150.0 * k, self.feet + 12.4 * t * t * k);
            let (next, past) = (px + 5.0 * k, 12.4 * (t + 1.0 / 30.0).powi(2) * k + self.feet);
            rail = rail.line(&[(px, py), (px, py - 14.0 * k)]).line(&[(px, py - 14.0 * k), (next, past - 14.0 * k)]);
        }
        self.canvas.stroke(&rail, 1.6 * self.unit, dark, 1.0);
        self.person(&Figure::cast(self.brief), focus, self.feet + 1.0, hero);
        self.water(0.7, x);
        self.fog(water, self.height * 0.03, 0.4);
    }
}

//! A shop front on a bright street, and a couple before it.

use typography::{Align, Face, Line, Style};

use crate::canvas::{Shape, add, mix, scale, smooth};
use crate::figure::Figure;
use crate::outlines::{EIFFEL, HEART};
use crate::palette::rgb;
use crate::scenery::Scene;

const BOOKS: &str = "book,bookshop,bookstore,library,librairie";

impl Scene<'_> {
    pub(crate) fn shop(&mut self) {
        self.sky_with_disc(0.5, 2.3);
        let (hero, ground) = (self.hero, self.feet - self.hero * 0.06);
        let half = (hero * 1.6).min(self.width * 0.4);
        let x = self.focus.clamp(half * 1.12, self.width - half * 1.12);
        if self.brief.mentions("paris,parisian,french") {
            let tower = self.outline(EIFFEL, x - self.side * half * 0.6, ground - hero * 1.72, hero * 1.35);
            self.canvas.paint(&tower, mix(self.palette.sky[2], self.palette.ink, 0.28), 0.8);
        }
        self.towers();
        self.fog(self.horizon, self.height * 0.16, 0.5);
        let (ink, accent, trim) = (self.palette.ink, self.palette.accent, self.palette.ground);
        let trim = mix(trim, ink, 0.3);
        let (left, top, tall) = (x - half, ground - hero * 1.8, hero * 1.8);
        let front = Shape::default().rect(left, top, half * 2.0, tall);
        let wall = mix(self.palette.light, self.palette.sky[2], 0.35);
        self.canvas.blur(&front, 16.0 * self.unit, ink, 0.35);
        self.canvas.fill(&front, |_, y, _| scale(wall, 0.95 - 0.3 * smooth(top, ground, y)));
        let fascia = Shape::default().rect(left - half * 0.03, top, half * 2.06, hero * 0.3).rect(
            left - half * 0.06,
            top - hero * 0.05,
            half * 2.12,
            hero * 0.06,
        );
        self.canvas.paint(&fascia, trim, 1.0);
        let (head, sill) = (top + tall * 0.3, ground - hero * 0.22);
        let window = Shape::default().rect(left + half * 0.12, head, half * 1.14, sill - head);
        let panes = window.rect(left + half * 1.42, head, half * 0.44, ground - head);
        self.canvas.glow(&panes, 24.0 * self.unit, scale(accent, 0.3));
        self.canvas.fill(&panes, |px, py, _| {
            let from = (px - x).abs() / half * 0.5 + (py - head) / (ground - head) * 0.6;
            mix(mix(accent, [1.0; 3], 0.15), mix(scale(accent, 0.6), [0.5, 0.1, 0.05], 0.4), smooth(0.1, 1.0, from))
        });
        self.goods(left + half * 0.14, half * 1.1, head, sill);
        let bars = Shape::default().rect(left + half * 0.69, head, 0.1, sill - head);
        self.canvas.stroke(&panes.and(&bars), 6.0 * self.unit, trim, 1.0);
        self.sign(x, top + hero * 0.15, hero * 0.16);
        self.awning(x, half * 1.03, top + hero * 0.3, hero * 0.4);
        self.canvas.shade((0.0, ground), (self.width, self.height), |px, py, _| {
            let warm = (1.0 - (px - x).abs() / (half * 1.4)).max(0.0) * (1.0 - smooth(0.0, hero * 0.8, py - ground));
            let stone = mix(mix(wall, ink, 0.35), ink, smooth(ground, ground + hero * 0.6, py));
            add(stone, scale(accent, 0.3 * warm))
        });
        if self.unpeopled() {
            return;
        }
        for (figure, way) in Figure::couple().iter().zip([-1.0, 1.0]) {
            self.person(figure, x + way * hero * 0.15, self.feet, hero);
        }
        for i in 0..4 {
            let (size, rise) = (hero * (0.09 - 0.015 * i as f32), hero * (1.14 + 0.2 * i as f32));
            let heart = self.outline(HEART, x + hero * 0.12 * (i as f32 * 2.0).sin(), self.feet - rise, size);
            self.canvas.paint(&heart, rgb(0xD0203A), 0.95 - 0.15 * i as f32);
        }
    }

    /// What the shop is, in letters over its window.
    fn sign(&mut self, x: f32, y: f32, size: f32) {
        let kinds =
            [("bakery,baker,boulangerie,bread", "Boulangerie"), (BOOKS, "Books"), ("florist,flower", "Flowers")];
        let kind = kinds.iter().find(|kind| self.brief.mentions(kind.0));
        let word = kind.map_or("Café", |kind| kind.1);
        let style = Style { face: Face::PlayfairDisplay, size, tracking: 0.05 };
        if let Some(word) = Line::new(word, style).at(x, y + size * 0.3, Align::Centre) {
            self.canvas.paint(&Shape::from(&word), rgb(0xFBF1DF), 1.0);
        }
    }

    /// Bread or books on shelves.
    fn goods(&mut self, left: f32, wide: f32, top: f32, sill: f32) {
        let books = self.brief.mentions(BOOKS);
        let colors =
            if books { [0x8A2B2B, 0x2F5D62, 0xC8963E, 0x3B3A5A] } else { [0xC97A2E, 0xDD9C4C, 0xA8561F, 0xE8B56A] };
        for shelf in 1..=3 {
            let y = top + (sill - top) * (0.22 + 0.25 * shelf as f32);
            let board = Shape::default().rect(left, y, wide, 3.0 * self.unit);
            self.canvas.paint(&board, rgb(0x5A2C14), 0.9);
            let mut x = left + self.hero * 0.06;
            while x < left + wide - self.hero * 0.12 {
                let size = self.hero * self.random.range(0.7, 1.2);
                let (wide, tall) = if books { (size * 0.03, size * 0.15) } else { (size * 0.12, size * 0.08) };
                // An arch without a rise is a book's back, and a low arch is a loaf.
                let shape = Shape::default().arch(x, y - tall, wide, tall, if books { 0.0 } else { 0.7 });
                let color = rgb(*self.random.pick(&colors));
                self.canvas.fill(&shape, |px, py, _| {
                    let score = smooth(0.7, 1.0, ((px - x) / wide * 12.0 + (py - y) / tall * 2.0).sin());
                    let color = if books { color } else { mix(color, rgb(0xFBE0AE), 0.5 * score) };
                    scale(color, 1.1 - 0.6 * smooth(y - tall, y, py))
                });
                x += (wide * 1.15).max(2.0);
            }
        }
    }

    /// A striped awning with a scalloped hem.
    fn awning(&mut self, x: f32, half: f32, top: f32, tall: f32) {
        let (stripes, hem) = (11, top + tall * 0.78);
        for i in 0..stripes {
            let edge = |j: i32, k: f32| x + half * k * (2.0 * j as f32 / stripes as f32 - 1.0);
            let (left, right) = (edge(i, 1.06), edge(i + 1, 1.06));
            let stripe = Shape::default()
                .polygon(&[(edge(i, 1.0), top), (edge(i + 1, 1.0), top), (right, hem), (left, hem)])
                .ellipse((left + right) / 2.0, hem, (right - left) / 2.0, tall * 0.2);
            let color = if i % 2 == 0 { rgb(0xC93446) } else { rgb(0xFBF1DF) };
            self.canvas.fill(&stripe, |_, y, _| scale(color, 1.0 - 0.4 * smooth(top, top + tall, y)));
        }
    }
}
